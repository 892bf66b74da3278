package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// A kind is one of the closed set of reasons why a lookup found nothing.
type kind string

// Error returns the kind in words, as a sentinel's own text.
func (k kind) Error() string { return "discovery: " + string(k) }

// The kinds of a LookupError, for errors.Is.
const (
	ErrNoSuchName   = kind("no such name")             // NXDOMAIN
	ErrNoRecords    = kind("the name has no records")  // NODATA: the name exists, but has none of the type
	ErrNoService    = kind("the service is not there") // SRV with the target "." (RFC 2782)
	ErrServerFailed = kind("the server failed")        // SERVFAIL and whatever else is no answer
	ErrRefused      = kind("the server refused")       // REFUSED
	ErrNoAnswer     = kind("no answer")                // nothing came in time, or there was no way to the server
	ErrBadAnswer    = kind("no usable answer")         // what came was none to the question, or contradicts itself
	ErrBadBackend   = kind("unusable backend")         // the answer has addresses or ports nothing can listen on
	// or of one link alone: none that the DNS may name, unless AllowLoopback
	ErrOwnAddress  = kind("address of this machine")
	ErrBadName     = kind("not a domain name")  // what was to be asked for; no server was asked
	ErrBadResolver = kind("no usable resolver") // what was to be asked, or where that is said
)

// A LookupError says why a lookup in the DNS has no complete answer. Its text has no port or id of ours and so is the
// same when the reason is.
type LookupError struct {
	Name   string // fully qualified, unless no server was asked
	Type   string // "A", "AAAA", "A/AAAA" or "SRV"
	Server string // that was asked last, "IP:PORT"; may be empty
	Rcode  int    // of its answer; 0 if there was none
	Kind   error  // one of the kinds above
	Detail string // more in words; may be empty
	Cause  error  // of the operating system or the library; may be nil
}

// Error says what was looked up, where, and what came of it.
func (e *LookupError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "look up %s of %s", e.Type, e.Name)
	if e.Server != "" {
		fmt.Fprintf(&b, " at %s", e.Server)
	}
	words := e.Kind.Error()
	if k, ours := errors.AsType[kind](e.Kind); ours {
		words = string(k)
	}
	fmt.Fprintf(&b, ": %s", words)
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *LookupError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// empty reports whether err says that there is nothing to be found, and not that it could not be found out.
func empty(err error) bool {
	return errors.Is(err, ErrNoSuchName) || errors.Is(err, ErrNoRecords)
}

// unreached is the error of a question that no answer came to.
func unreached(err error) *LookupError {
	return &LookupError{Kind: ErrNoAnswer, Detail: inWords(err), Cause: err}
}

// inWords is err without the addresses that package net puts into it: our own port is another one each time.
func inWords(err error) string {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() ||
		errors.Is(err, context.DeadlineExceeded) {
		return "timed out"
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return call.Err.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}
