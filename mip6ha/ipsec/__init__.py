"""IPsec in userspace: ESP, its transforms, replay windows, the SAD, and policies on the home address."""
