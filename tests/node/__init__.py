"""The home agent core on a simulated clock, with mobile nodes made from the codecs."""
