"""Where packets, timers and effects meet the operating system: Twisted, TUN, netlink, sockets, files."""
