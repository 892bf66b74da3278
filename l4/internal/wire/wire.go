// Package wire reads and writes the network bytes that the data plane itself needs to know: pure functions, without a
// socket, a clock or state, that may be called from any goroutine. What comes from the network may be anything, so each
// parser has a fuzz target.
package wire
