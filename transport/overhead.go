package transport

// Overhead is how much capacity beyond its length a payload should have when it
// is sent through a channel of a Mux: then the channel's mark fits in without a
// copy.
const Overhead = 8
