// Package wire reads and writes the network bytes that the data plane itself has to understand. Its functions are pure:
// they use no socket, clock or state, and may be called from any goroutine. Input from the network may be anything, so
// each parser has a fuzz target.
package wire
