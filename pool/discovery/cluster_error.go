package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

// The kinds of a ClusterError, beside ErrNoAnswer and ErrBadAnswer, for errors.Is.
const (
	ErrNoScope     = kind("no such cluster")      // the source knows no cluster of this name
	ErrNoMembers   = kind("no usable member")     // the source knows the cluster, but no member that could be used
	ErrLogin       = kind("the login is refused") // the user or the password is wrong or missing, or a right is
	ErrTLS         = kind("no TLS connection")    // one side speaks TLS and the other does not, or trusts it not
	ErrNoMajority  = kind("no majority")          // the store's members have no leader, or do not agree
	ErrTooMuchData = kind("too much data")        // the answer is too large
)

// A ClusterError says why the endpoints of a source gave no answer, such as members of etcd or a cluster's own servers.
// The same cause has the same text. It is a plain value.
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

// etcdError returns what a member of etcd has done wrong as an error of discovery.
func etcdError(m *etcd.Mistake) *ClusterError {
	e := &ClusterError{What: "etcd", Endpoints: []string{m.Endpoint}, Detail: m.Detail, Cause: m.Err}
	switch m.Kind {
	case etcd.LoginRefused:
		e.Kind = ErrLogin
	case etcd.NoTLS:
		e.Kind = ErrTLS
	case etcd.NoMajority:
		e.Kind = ErrNoMajority
	case etcd.TooMuchData:
		e.Kind = ErrTooMuchData
	case etcd.NoAnswer:
		e.Kind = ErrNoAnswer
	default:
		e.Kind = ErrBadAnswer
	}
	return e
}

// quotedNames lists names from outside: most of them, and "..." if there are more.
func quotedNames(names []string, most int) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = reach.Quote(name)
	}
	if len(names) > most {
		quoted = append(quoted[:most], "...")
	}
	return strings.Join(quoted, ", ")
}
