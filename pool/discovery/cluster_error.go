package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// The kinds of a ClusterError, beside ErrNoAnswer and ErrBadAnswer, for errors.Is.
const (
	ErrNoScope     = kind("no such cluster")          // the source knows no cluster of this name
	ErrNoMembers   = kind("no usable member")         // the source knows the cluster, but no member that could be used
	ErrLogin       = kind("the login is refused")     // the user or the password is wrong or missing, or a right is
	ErrTLS         = kind("no TLS connection")        // one side speaks TLS and the other does not, or trusts it not
	ErrNoMajority  = kind("no majority")              // the store's members have no leader, or do not agree
	ErrTooMuchData = kind("more data than a cluster") // the answer is too large
)

// A ClusterError says why the endpoints of a database cluster's source gave no answer. The same cause has the same
// text. It is a plain value.
type ClusterError struct {
	What      string   // who was asked, such as "etcd"
	Endpoints []string // that gave this answer, in the order of the configuration
	Kind      error    // one of the kinds above
	Detail    string   // more in words, and what to do about it; may be empty
	Cause     error    // may be nil
}

// Error says who was asked, where, and with what result.
func (e *ClusterError) Error() string {
	words := e.Kind.Error()
	if k, ours := errors.AsType[kind](e.Kind); ours {
		words = string(k)
	}
	text := fmt.Sprintf("ask %s at %s: %s", e.What, someOf(e.Endpoints), words)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Unwrap returns the kind and the cause.
func (e *ClusterError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// joinClusterErrors returns the errors of all endpoints as one: each text once, with all endpoints that gave it, in the
// order of endpoints.
func joinClusterErrors(endpoints []string, failures []*ClusterError) error {
	var merged []*ClusterError
	for _, endpoint := range endpoints {
		i := slices.IndexFunc(failures, func(f *ClusterError) bool { return slices.Contains(f.Endpoints, endpoint) })
		if i < 0 {
			continue
		}
		f := *failures[i]
		k := slices.IndexFunc(merged, func(m *ClusterError) bool { return m.Kind == f.Kind && m.Detail == f.Detail })
		if k >= 0 {
			merged[k].Endpoints = append(merged[k].Endpoints, endpoint)
			continue
		}
		f.Endpoints = []string{endpoint}
		merged = append(merged, &f)
	}
	if len(merged) == 1 {
		return merged[0]
	}
	all := make(clusterErrors, len(merged))
	for i, m := range merged {
		all[i] = m
	}
	return all
}

// clusterErrors are the errors of endpoints that fail for different reasons.
type clusterErrors []error

// Error returns the errors in one line.
func (es clusterErrors) Error() string {
	texts := make([]string, len(es))
	for i, e := range es {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the errors.
func (es clusterErrors) Unwrap() []error { return es }

// tlsMistake returns the kind and the detail of a failed TLS handshake, and what to do about it. ok is false if err is
// no such failure.
func tlsMistake(err error) (detail string, ok bool) {
	if unknown, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		by := "an unknown authority"
		if unknown.Cert != nil && unknown.Cert.Issuer.CommonName != "" {
			by = shown(unknown.Cert.Issuer.CommonName)
		}
		return "its certificate is signed by " + by + ": set ca to a file with the certificate of that authority", true
	}
	if name, is := errors.AsType[x509.HostnameError](err); is {
		return fmt.Sprintf("its certificate is not for %q: set server_name to a name that the certificate has",
			name.Host), true
	}
	if invalid, is := errors.AsType[x509.CertificateInvalidError](err); is {
		if invalid.Reason == x509.Expired {
			return "its certificate has expired or is not valid yet", true
		}
		return "its certificate is not valid: " + strings.TrimPrefix(invalid.Error(), "x509: "), true
	}
	if wrong, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return "its certificate is not trusted: " + strings.TrimPrefix(wrong.Err.Error(), "x509: "), true
	}
	if alert, is := errors.AsType[tls.AlertError](err); is {
		return alertMistake(alert), true
	}
	if op, is := errors.AsType[*net.OpError](err); is && op.Op == "remote error" {
		if alert, is := op.Err.(tls.AlertError); is {
			return alertMistake(alert), true
		}
		text := op.Err.Error()
		if strings.Contains(text, "certificate") {
			return "it refuses our certificate (" + text + "): set cert and key to a certificate that it trusts", true
		}
		return "it ended the handshake: " + text, true
	}
	if record, is := errors.AsType[tls.RecordHeaderError](err); is {
		_ = record // its text contains an address of ours
		return plainEndpoint, true
	}
	return "", false
}

// alertMistake returns what an alert of the other side means.
func alertMistake(alert tls.AlertError) string {
	const badCertificate, certificateRequired = 42, 116 // RFC 8446, 6
	if alert >= badCertificate && alert <= 49 || alert == certificateRequired {
		return fmt.Sprintf("it refuses our certificate (%s): set cert and key to a certificate that it trusts",
			strings.TrimPrefix(alert.Error(), "tls: "))
	}
	return "it ended the handshake: " + strings.TrimPrefix(alert.Error(), "tls: ")
}

// What to do if only one side speaks TLS.
const (
	plainEndpoint  = `it does not speak TLS: needs an endpoint that begins with "http://"`
	secureEndpoint = `it speaks TLS: needs an endpoint that begins with "https://"`
)

// noAnswer returns the words for an endpoint that cannot be reached or does not answer.
func noAnswer(err error) string {
	if d, is := errors.AsType[*net.DNSError](err); is {
		return fmt.Sprintf("its host %q: %v", d.Name, hostMistake(err))
	}
	if errors.Is(err, context.Canceled) {
		return "ended"
	}
	return inWords(err)
}
