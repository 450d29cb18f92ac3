-- Postdissector: verifies the checksum of every Mobility Header (RFC 6275 6.1.1), which the dissector of
-- Wireshark 4.0 only prints. It works on what Wireshark decoded, so inside ESP it needs the keys of the esp_sa file.
-- The pseudo-header has the home address in place of the source with a home address option (6.3) and in place of the
-- destination with a type 2 routing header (6.4).

local check = Proto("mip6check", "Mobility Header checksum")
local status = ProtoField.string("mip6check.status", "Mobility Header checksum status")
local expected = ProtoField.uint16("mip6check.expected", "Mobility Header checksum expected", base.HEX)
check.fields = { status, expected }

local payload_protocol = Field.new("mip6.proto")
local checksum = Field.new("mip6.csum")
local source = Field.new("ipv6.src")
local destination = Field.new("ipv6.dst")
local home_option = Field.new("ipv6.opt.mipv6.home_address")
local home_routing = Field.new("ipv6.routing.mipv6.home_address")

local function last(...)
  local all = { ... }
  return all[#all]
end

local function sum(range)
  local total, bytes = 0, range:bytes()
  for at = 0, bytes:len() - 1, 2 do
    total = total + bytes:get_index(at) * 256
    if at + 1 < bytes:len() then
      total = total + bytes:get_index(at + 1)
    end
  end
  return total
end

function check.dissector(_, _, tree)
  local first = last(payload_protocol())
  if first == nil then
    return
  end
  local given = last(checksum())
  local buffer, start = first.source, first.offset
  local length = (buffer(start + 1, 1):uint() + 1) * 8
  local from = last(home_option()) or last(source())
  local to = last(home_routing()) or last(destination())
  local total = sum(buffer(start, length)) - given.value + sum(from.range) + sum(to.range) + length + 135
  while total > 0xffff do
    total = total % 0x10000 + math.floor(total / 0x10000)
  end
  local good = 0xffff - total
  tree:add(status, given.value == good and "Good" or "Bad")
  tree:add(expected, good)
end

register_postdissector(check)
