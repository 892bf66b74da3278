package wire

import (
	"bytes"
	"strconv"
)

// Bounds of a command of Redis. A server takes 64 KiB on a line, and a million arguments of up to 512 MB.
const (
	maxRedisLine     = 64 << 10
	maxRedisArgs     = 1 << 20
	maxRedisArgument = 512 << 20
)

// ReadRedisCommand reads the first command in what a client of Redis has sent, in either form (an array of bulk
// strings, or words on a line). It returns the command's first word and its size in bytes, 0 if it is not whole. An
// empty command has no name, and a server does not answer it. ok is false if no more bytes could make it a command.
// name is a part of stream.
func ReadRedisCommand(stream []byte) (name []byte, size int, ok bool) {
	if len(stream) == 0 {
		return nil, 0, true
	}
	line, size, ok := redisLine(stream)
	if size == 0 {
		return nil, 0, ok
	}
	if stream[0] != '*' {
		if words := bytes.Fields(line); len(words) > 0 {
			name = words[0]
		}
		return name, size, true
	}
	args, ok := redisNumber(line[1:], maxRedisArgs)
	if !ok {
		return nil, 0, false
	}
	for i := range args {
		line, n, ok := redisLine(stream[size:])
		if n == 0 {
			return nil, 0, ok && (size == len(stream) || stream[size] == '$')
		}
		if len(line) == 0 || line[0] != '$' {
			return nil, 0, false
		}
		length, ok := redisNumber(line[1:], maxRedisArgument)
		if !ok || length < 0 {
			return nil, 0, false
		}
		size += n
		if len(stream)-size < length+len("\r\n") {
			return nil, 0, true
		}
		if i == 0 {
			name = stream[size : size+length]
		}
		size += length + len("\r\n")
	}
	return name, size, true
}

// redisLine returns the first line without its end, and its size with it; 0 if it is not whole. ok is false if it is
// too long.
func redisLine(stream []byte) (line []byte, size int, ok bool) {
	end := bytes.IndexByte(stream, '\n')
	switch {
	case end >= maxRedisLine || end < 0 && len(stream) >= maxRedisLine:
		return nil, 0, false
	case end < 0:
		return nil, 0, true
	}
	return bytes.TrimSuffix(stream[:end], []byte("\r")), end + 1, true
}

// redisNumber reads the number of arguments, or the length of one. A negative number of arguments is an empty command.
func redisNumber(text []byte, most int) (n int, ok bool) {
	if len(text) > len("-9223372036854775808") {
		return 0, false
	}
	n, err := strconv.Atoi(string(text))
	return n, err == nil && n <= most
}
