package healthcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// This file has the two messages of grpc.health.v1 and what frames them:
//
//	message HealthCheckRequest  { string service = 1; }
//	message HealthCheckResponse { ServingStatus status = 1; } // an enum
//
// They never change (health.proto is a stable interface), and are two dozen bytes: no reason for a library of protobuf.

// maxGRPCBytes is how long an answer may be. It has 7 bytes; the rest is for fields that we do not know.
const maxGRPCBytes = 1 << 10

// grpcPrefixBytes is the length of what goes before each message: one byte of flags and four of length
// (PROTOCOL-HTTP2.md of gRPC).
const grpcPrefixBytes = 5

// A servingStatus is what a health service says. Any number may come.
type servingStatus int32

// The statuses of health.proto.
const (
	servingUnknown        servingStatus = 0
	serving               servingStatus = 1
	notServing            servingStatus = 2
	servingServiceUnknown servingStatus = 3
)

// err puts a status other than serving into words.
func (s servingStatus) err() error {
	switch s {
	case serving:
		return nil
	case servingUnknown:
		return unhealthyf("serving status unknown")
	case notServing:
		return unhealthyf("not serving")
	case servingServiceUnknown:
		return unhealthyf("service unknown")
	}
	return unhealthyf("serving status %d", int32(s))
}

// appendHealthRequest appends the request for a service.
func appendHealthRequest(b []byte, service string) []byte {
	if service == "" { // proto3 leaves out what is empty
		return b
	}
	b = append(b, 1<<3|wireBytes)
	b = binary.AppendUvarint(b, uint64(len(service)))
	return append(b, service...)
}

// appendGRPCMessage appends message with its prefix.
func appendGRPCMessage(b, message []byte) []byte {
	b = append(b, 0) // not compressed
	b = binary.BigEndian.AppendUint32(b, uint32(len(message)))
	return append(b, message...)
}

// parseGRPCAnswer returns the status in an answer, which has to be one message.
func parseGRPCAnswer(b []byte) (servingStatus, error) {
	switch {
	case len(b) == 0:
		return 0, errors.New("no message")
	case len(b) < grpcPrefixBytes:
		return 0, errors.New("message cut short")
	case b[0] != 0: // we offered no compression
		return 0, fmt.Errorf("message with flags %#x", b[0])
	}
	length, message := binary.BigEndian.Uint32(b[1:grpcPrefixBytes]), b[grpcPrefixBytes:]
	switch {
	case uint64(length) > uint64(len(message)):
		return 0, errors.New("message cut short")
	case uint64(length) < uint64(len(message)):
		return 0, errors.New("more than one message")
	}
	return parseHealthResponse(message)
}

// The wire types of protobuf (encoding.md). Those of groups, 3 and 4, are long gone.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// errProtobuf is the error for each message that is none; which of its bytes is wrong helps nobody.
var errProtobuf = errors.New("message is no protobuf")

// parseHealthResponse returns the status in a message. Fields that it does not know are skipped, and of several statuses
// the last one counts, as protobuf demands.
func parseHealthResponse(b []byte) (servingStatus, error) {
	status := servingUnknown // what is not there is 0
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 { // fields are numbered from 1 to 2^29-1
			return 0, errProtobuf
		}
		b = b[n:]
		size := uint64(0) // of the field
		switch tag & 7 {
		case wireVarint:
			value, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, errProtobuf
			}
			if tag>>3 == 1 {
				status = servingStatus(value) // an enum has 32 bits, and what is above is cut off
			}
			size = uint64(n)
		case wire64:
			size = 8
		case wire32:
			size = 4
		case wireBytes:
			length, n := binary.Uvarint(b)
			if n <= 0 || length > uint64(len(b)) { // the latter keeps the sum below from wrapping around
				return 0, errProtobuf
			}
			size = uint64(n) + length
		default:
			return 0, errProtobuf
		}
		if size > uint64(len(b)) {
			return 0, errProtobuf
		}
		b = b[size:]
	}
	return status, nil
}
