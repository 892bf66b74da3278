package discovery

import (
	"errors"
	"fmt"
	"strings"

	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

// A kind is one of a closed set of reasons why a lookup failed.
type kind string

// Error returns the kind in words.
func (k kind) Error() string { return "discovery: " + string(k) }

// The kinds of a LookupError, for errors.Is.
const (
	ErrNoSuchName   = kind("no such name")             // NXDOMAIN
	ErrNoRecords    = kind("the name has no records")  // NODATA: the name exists, but has none of the type
	ErrNoService    = kind("the service is not there") // SRV with the target "." (RFC 2782)
	ErrServerFailed = kind("the server failed")        // SERVFAIL and other codes without an answer
	ErrRefused      = kind("the server refused")       // REFUSED
	ErrNoAnswer     = kind("no answer")                // nothing came in time, or the server could not be reached
	ErrBadAnswer    = kind("no usable answer")         // the reply does not answer the question, or contradicts itself
	ErrBadBackend   = kind("unusable backend")         // the answer has addresses or ports that nothing can listen on
	// or a link-local address; the DNS may name neither without AllowLoopback
	ErrOwnAddress  = kind("address of this machine")
	ErrBadName     = kind("not a domain name")  // the name to look up is invalid; no server was asked
	ErrNoBackend   = kind("no backend")         // the source has answered, and names none
	ErrBadResolver = kind("no usable resolver") // the resolver, or the file that names it, is unusable
)

// A LookupError says why a lookup in the DNS has no complete answer. Its text contains no port or id of ours, so that
// the same reason has the same text.
type LookupError struct {
	Name   string // fully qualified, unless no server was asked
	Type   string // "A", "AAAA", "A/AAAA" or "SRV"
	Server string // the server asked last, "IP:PORT"; may be empty
	Rcode  int    // of its answer; 0 if there was none
	Kind   error  // one of the kinds above
	Detail string // more in words; may be empty
	Cause  error  // of the operating system or the library; may be nil
}

// Error says what was looked up, at which server, and with what result.
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

// empty reports whether err says that the DNS has no such records, and not that the lookup failed.
func empty(err error) bool {
	return errors.Is(err, ErrNoSuchName) || errors.Is(err, ErrNoRecords)
}

// unreached returns the error of a question without an answer.
func unreached(err error) *LookupError {
	return &LookupError{Kind: ErrNoAnswer, Detail: reach.InWords(err), Cause: err}
}
