-- HARP, the Home Agent Reliability Protocol (docs/harp.md), for Wireshark and tshark:
--
--     tshark -X lua_script:share/wireshark/harp.lua -r FILE -O harp
--     tshark -X lua_script:share/wireshark/harp.lua -o harp.hello:250 ...     (other numbers)
--
-- Covered: State Synchronization, Home Agent Control, HA-HELLO and the Home Agent Switch with their
-- options, also inside ESP that Wireshark decrypts. Every other Mobility Header goes to Wireshark's own
-- dissector. Not covered: the checksum, and what a context holds.

local harp = Proto("harp", "Home Agent Reliability Protocol")
local builtin = DissectorTable.get("ip.proto"):get_dissector(135)

-- name of the preference, default, what it numbers: the table of mip6ha/harp/numbers.py
local NUMBERS = {
    { "state_synchronization", 240, "MH type of State Synchronization" },
    { "control", 241, "MH type of Home Agent Control" },
    { "hello", 242, "MH type of HA-HELLO" },
    { "home_agent_switch", 12, "MH type of Home Agent Switch" },
    { "ip_address", 240, "IP Address option" },
    { "binding_cache_information", 241, "Binding Cache Information option" },
    { "synchronization_status", 242, "State Synchronization Status option" },
    { "aaa_information", 243, "AAA Information option" },
    { "term", 244, "Term option" },
    { "context", 245, "Context option" },
    { "synchronized_members", 246, "Synchronized Members option" },
    { "digest", 247, "Digest option" },
    { "incarnation", 248, "Incarnation option" },
}
for _, number in ipairs(NUMBERS) do
    harp.prefs[number[1]] = Pref.uint(number[3], number[2], "A type, 0 to 255")
end

local SYNCHRONIZATION = { [0] = "SS-REQ", [1] = "SS-REP", [2] = "SS-ACK" }
local CONTROL = { [0] = "SWO-REQ", [1] = "SWO-REP", [2] = "SWB-REQ", [3] = "SWB-REP", [4] = "SW-COMP" }
local CONTROL_STATUS = {
    [0] = "success",
    [128] = "reason unspecified",
    [129] = "administratively prohibited",
    [130] = "not the active home agent",
    [131] = "not a standby home agent",
    [132] = "not in the same redundant home agent set",
}
local STATUS = {
    [0] = "success",
    [128] = "reason unspecified",
    [129] = "malformed",
    [130] = "not in the same set",
    [131] = "no such binding",
}

local f = {}
local function field(kind, name, label, ...)
    f[name] = ProtoField[kind]("harp." .. name, label, ...)
end

field("uint8", "payload_proto", "Payload protocol")
field("uint8", "length", "Header length")
field("uint8", "type", "MH type")
field("uint16", "checksum", "Checksum", base.HEX)
field("uint8", "ss.type", "Type", base.DEC, SYNCHRONIZATION)
field("bool", "ss.acknowledge", "Acknowledgement requested", 8, nil, 0x80)
field("uint16", "ss.identifier", "Identifier")
field("uint8", "control.type", "Type", base.DEC, CONTROL)
field("uint8", "control.status", "Status", base.DEC, CONTROL_STATUS)
field("uint16", "hello.sequence", "Sequence number")
field("int16", "hello.preference", "Preference")
field("uint16", "hello.lifetime", "Lifetime (s)")
field("uint16", "hello.interval", "Hello interval (ms)")
field("uint8", "hello.group", "Group")
field("bool", "hello.active", "Active", 8, nil, 0x80)
field("bool", "hello.solicit", "Answer at once", 8, nil, 0x40)
field("bool", "hello.virtual", "Virtual switch", 8, nil, 0x20)
field("uint8", "switch.count", "Number of addresses")
field("bool", "switch.rekey", "IPsec re-key", 8, nil, 0x80)
field("ipv6", "switch.address", "Home agent address")
field("uint8", "option.type", "Option type")
field("uint8", "option.length", "Option length")
field("bytes", "option.data", "Data")
field("uint8", "ip_address.prefix_length", "Prefix length")
field("ipv6", "ip_address.address", "Address")
field("ipv6", "binding.home_address", "Home address")
field("ipv6", "binding.care_of_address", "Care-of address")
field("uint16", "binding.flags", "Flags", base.HEX)
field("bool", "binding.flags.acknowledge", "Acknowledge", 16, nil, 0x8000)
field("bool", "binding.flags.home_registration", "Home registration", 16, nil, 0x4000)
field("bool", "binding.flags.link_local", "Link-local compatibility", 16, nil, 0x2000)
field("bool", "binding.flags.key_management", "Key management mobility", 16, nil, 0x1000)
field("bool", "binding.flags.mobile_router", "Mobile router", 16, nil, 0x0400)
field("uint16", "binding.sequence", "Sequence number")
field("uint16", "binding.lifetime", "Lifetime left (4 s)")
field("uint8", "status.status", "Status", base.DEC, STATUS)
field("ipv6", "status.home_address", "Home address")
field("bytes", "aaa.avps", "AVPs")
field("uint64", "term", "Term")
field("uint8", "context.index", "Fragment")
field("uint8", "context.count", "Fragments")
field("uint64", "context.generation", "Generation")
field("bytes", "context.data", "Octets of the context")
field("uint8", "member", "Synchronized member")
field("bytes", "digest", "Digest")
field("uint64", "incarnation.own", "Incarnation of the sender")
field("uint64", "incarnation.echo", "Incarnation of the receiver, as heard")
field("uint64", "incarnation.floor", "Sequence numbers used before")
field("uint8", "prefix.length", "Prefix length")
field("ipv6", "prefix.prefix", "Mobile network prefix")
field("uint8", "identifier.subtype", "Subtype")
field("bytes", "identifier.value", "Mobile node identifier")

local list = {}
for _, value in pairs(f) do
    list[#list + 1] = value
end
harp.fields = list

local truncated = ProtoExpert.new("harp.truncated", "It ends too early", expert.group.MALFORMED, expert.severity.ERROR)
local bad_length =
    ProtoExpert.new("harp.option.bad_length", "The option's length is wrong", expert.group.MALFORMED, expert.severity.ERROR)
local unknown = ProtoExpert.new("harp.unknown", "No such message", expert.group.PROTOCOL, expert.severity.WARN)
harp.experts = { truncated, bad_length, unknown }

-- What is in the options' data: preference or type -> { name, length, is it exact, what to show }.
local OPTIONS = {
    ip_address = { "IP Address", 18, true, function(data, tree)
        tree:add(f["ip_address.prefix_length"], data(1, 1))
        tree:add(f["ip_address.address"], data(2, 16))
    end },
    binding_cache_information = { "Binding Cache Information", 40, true, function(data, tree)
        tree:add(f["binding.home_address"], data(0, 16))
        tree:add(f["binding.care_of_address"], data(16, 16))
        local flags = tree:add(f["binding.flags"], data(32, 2))
        for _, name in ipairs({ "acknowledge", "home_registration", "link_local", "key_management", "mobile_router" }) do
            flags:add(f["binding.flags." .. name], data(32, 2))
        end
        tree:add(f["binding.sequence"], data(34, 2))
        tree:add(f["binding.lifetime"], data(36, 2)):append_text(" = " .. data(36, 2):uint() * 4 .. " s")
    end },
    synchronization_status = { "State Synchronization Status", 18, true, function(data, tree)
        tree:add(f["status.status"], data(0, 1))
        tree:add(f["status.home_address"], data(2, 16))
    end },
    aaa_information = { "AAA Information", 0, false, function(data, tree)
        if data then
            tree:add(f["aaa.avps"], data)
        end
    end },
    term = { "Term", 8, true, function(data, tree)
        tree:add(f["term"], data(0, 8))
    end },
    context = { "Context", 10, false, function(data, tree)
        tree:add(f["context.index"], data(0, 1))
        tree:add(f["context.count"], data(1, 1))
        tree:add(f["context.generation"], data(2, 8))
        if data:len() > 10 then
            tree:add(f["context.data"], data(10))
        end
    end },
    synchronized_members = { "Synchronized Members", 0, false, function(data, tree)
        for at = 0, data and data:len() - 1 or -1 do
            tree:add(f["member"], data(at, 1))
        end
    end },
    digest = { "Digest", 0, false, function(data, tree)
        if data then
            tree:add(f["digest"], data)
        end
    end },
    incarnation = { "Incarnation", 24, true, function(data, tree)
        tree:add(f["incarnation.own"], data(0, 8))
        tree:add(f["incarnation.echo"], data(8, 8))
        tree:add(f["incarnation.floor"], data(16, 8))
    end },
    [6] = { "Mobile Network Prefix", 18, true, function(data, tree)
        tree:add(f["prefix.length"], data(1, 1))
        tree:add(f["prefix.prefix"], data(2, 16))
    end },
    [8] = { "Mobile Node Identifier", 2, false, function(data, tree)
        tree:add(f["identifier.subtype"], data(0, 1))
        tree:add(f["identifier.value"], data(1))
    end },
}

local function options_by_type()
    local found = { [6] = OPTIONS[6], [8] = OPTIONS[8] }
    for index = 5, #NUMBERS do
        local name = NUMBERS[index][1]
        found[harp.prefs[name]] = OPTIONS[name]
    end
    return found
end

-- The options from `at` on; returns how many of each there are, by name.
local function dissect_options(message, at, tree)
    local known, counts = options_by_type(), {}
    while at < message:len() do
        local kind = message(at, 1):uint()
        if kind == 0 then
            at = at + 1
        else
            if at + 2 > message:len() or at + 2 + message(at + 1, 1):uint() > message:len() then
                tree:add_proto_expert_info(truncated)
                return counts
            end
            local length = message(at + 1, 1):uint()
            if kind ~= 1 then
                local option = known[kind] or { "Unknown option", 0, false }
                local branch = tree:add(harp, message(at, 2 + length), option[1] .. " (" .. kind .. ")")
                branch:add(f["option.type"], message(at, 1))
                branch:add(f["option.length"], message(at + 1, 1))
                local data = length > 0 and message(at + 2, length) or nil
                if length < option[2] or (option[3] and length ~= option[2]) then
                    branch:add_proto_expert_info(bad_length)
                elseif option[4] then
                    option[4](data, branch)
                    counts[option[1]] = (counts[option[1]] or 0) + 1
                elseif data then
                    branch:add(f["option.data"], data)
                end
            end
            at = at + 2 + length
        end
    end
    return counts
end

local function counted(counts, name, what)
    return counts[name] and string.format(" %d %s", counts[name], what) or ""
end

local function dissect_synchronization(message, tree)
    local kind, identifier = message(6, 1):uint(), message(8, 2):uint()
    tree:add(f["ss.type"], message(6, 1))
    tree:add(f["ss.acknowledge"], message(7, 1))
    tree:add(f["ss.identifier"], message(8, 2))
    if not SYNCHRONIZATION[kind] then
        tree:add_proto_expert_info(unknown)
    end
    local counts = dissect_options(message, 10, tree)
    return string.format("%s id=%d", SYNCHRONIZATION[kind] or "State Synchronization?", identifier)
        .. (message(7, 1):bitfield(0, 1) == 1 and " A" or "")
        .. counted(counts, "IP Address", "wanted")
        .. counted(counts, "Binding Cache Information", "bindings")
        .. counted(counts, "State Synchronization Status", "statuses")
end

local function dissect_control(message, tree)
    local kind, status = message(6, 1):uint(), message(7, 1):uint()
    tree:add(f["control.type"], message(6, 1))
    local info = CONTROL[kind] or "Home Agent Control?"
    if kind == 1 or kind == 3 then
        tree:add(f["control.status"], message(7, 1))
        info = info .. ": " .. (CONTROL_STATUS[status] or "status " .. status)
    elseif not CONTROL[kind] then
        tree:add_proto_expert_info(unknown)
    end
    dissect_options(message, 8, tree)
    return info
end

local function dissect_hello(message, tree)
    tree:add(f["hello.sequence"], message(6, 2))
    tree:add(f["hello.preference"], message(8, 2))
    tree:add(f["hello.lifetime"], message(10, 2))
    tree:add(f["hello.interval"], message(12, 2))
    tree:add(f["hello.group"], message(14, 1))
    tree:add(f["hello.active"], message(15, 1))
    tree:add(f["hello.solicit"], message(15, 1))
    tree:add(f["hello.virtual"], message(15, 1))
    dissect_options(message, 18, tree)
    return string.format("HA-HELLO seq=%d group=%d", message(6, 2):uint(), message(14, 1):uint())
        .. (message(15, 1):bitfield(0, 1) == 1 and " active" or " standby")
        .. (message(15, 1):bitfield(1, 1) == 1 and " R" or "")
        .. (message(10, 2):uint() == 0 and " leaving" or "")
end

local function dissect_switch(message, tree)
    local count = message(6, 1):uint()
    tree:add(f["switch.count"], message(6, 1))
    tree:add(f["switch.rekey"], message(7, 1))
    if 8 + 16 * count > message:len() then
        tree:add_proto_expert_info(truncated)
    else
        for index = 0, count - 1 do
            tree:add(f["switch.address"], message(8 + 16 * index, 16))
        end
        dissect_options(message, 8 + 16 * count, tree)
    end
    return string.format("Home Agent Switch, %d addresses", count)
        .. (message(7, 1):bitfield(0, 1) == 1 and ", re-key" or "")
end

-- preference -> octets of frame and fixed part, what shows it
local MESSAGES = {
    state_synchronization = { 10, dissect_synchronization },
    control = { 8, dissect_control },
    hello = { 18, dissect_hello },
    home_agent_switch = { 8, dissect_switch },
}

local function message_of(kind)
    for name, message in pairs(MESSAGES) do
        if harp.prefs[name] == kind then
            return message
        end
    end
    return nil
end

function harp.dissector(tvb, pinfo, tree)
    local message = tvb:len() >= 8 and message_of(tvb(2, 1):uint())
    if not message then
        -- It has marked the packet itself when it raises an error.
        local fine, taken = pcall(builtin.call, builtin, tvb, pinfo, tree)
        return fine and taken or tvb:len()
    end
    local length = math.min(8 + 8 * tvb(1, 1):uint(), tvb:len())
    local whole = tvb(0, length):tvb()
    local branch = tree:add(harp, whole())
    branch:add(f["payload_proto"], whole(0, 1))
    branch:add(f["length"], whole(1, 1)):append_text(" = " .. 8 + 8 * whole(1, 1):uint() .. " octets")
    branch:add(f["type"], whole(2, 1))
    branch:add(f["checksum"], whole(4, 2))
    pinfo.cols.protocol = "HARP"
    if length < message[1] or length < 8 + 8 * whole(1, 1):uint() then
        branch:add_proto_expert_info(truncated)
        pinfo.cols.info = "Truncated"
    else
        local info = message[2](whole, branch)
        pinfo.cols.info = info
        branch:append_text(", " .. info)
    end
    return length
end

DissectorTable.get("ip.proto"):add(135, harp)
