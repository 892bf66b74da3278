package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// udpSize is the largest answer that we accept in one datagram; larger ones come by TCP. Such a datagram passes every
// link without fragments, which get lost and can be forged (DNS flag day 2020).
const udpSize = 1232

// ask asks one server once, by UDP, and again by TCP if the answer did not fit. The error is a *LookupError without its
// name and server.
func (r resolvers) ask(ctx context.Context, server string, query *dns.Msg) (*dns.Msg, error) {
	r.count()
	m, err := exchange(ctx, "udp", server, query, r.timeout)
	if err == nil && m.Truncated {
		r.count()
		m, err = exchange(ctx, "tcp", server, query, r.timeout)
		if err == nil && m.Truncated {
			err = &LookupError{Kind: ErrBadAnswer, Detail: "truncated, although by TCP"}
		}
	}
	return m, err
}

// exchange sends a query and returns the answer to it, or an error as ask does.
//
// It uses the library's connection and not its client. The client gives up at the first datagram that is not a DNS
// message, accepts the answer to another question, and ignores the end of ctx.
func exchange(ctx context.Context, network, server string, query *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	deadline := time.Now().Add(timeout)
	d := net.Dialer{Deadline: deadline, KeepAlive: -1} // the connection is too short-lived for keepalive
	c, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, unreached(err)
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, unreached(err)
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := &dns.Conn{Conn: c, UDPSize: udpSize}
	if err := conn.WriteMsg(query); err != nil {
		return nil, unreached(err)
	}
	m, err := receive(conn, query, network == "udp")
	if ctx.Err() != nil { // the end of ctx is the reason, not the closed connection
		return nil, unreached(ctx.Err())
	}
	return m, err
}

// receive returns the answer to query. Other datagrams are ignored: they may be forged or late.
func receive(conn *dns.Conn, query *dns.Msg, datagrams bool) (*dns.Msg, error) {
	var other error // why the last other message was refused
	for {
		raw, err := conn.ReadMsgHeader(nil)
		switch {
		case err == nil:
			var m *dns.Msg
			if m, err = accept(raw, query); err == nil {
				return m, nil
			}
			other = err
		case errors.Is(err, dns.ErrShortRead):
			other = err
		case other != nil:
			return nil, &LookupError{Kind: ErrBadAnswer, Detail: other.Error(), Cause: other}
		default:
			return nil, unreached(err)
		}
		if !datagrams {
			return nil, &LookupError{Kind: ErrBadAnswer, Detail: other.Error(), Cause: other}
		}
	}
}

// accept parses a message and returns it if it answers query, whole or truncated.
func accept(raw []byte, query *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	parseErr := m.Unpack(raw)
	asked := query.Question[0]
	switch {
	case parseErr != nil && len(m.Question) == 0:
		return nil, fmt.Errorf("not a DNS message: %w", parseErr)
	case m.Id != query.Id:
		return nil, errors.New("message with another id")
	case !m.Response || m.Opcode != dns.OpcodeQuery:
		return nil, errors.New("message that is not an answer")
	case len(m.Question) == 0 && isFailure(m.Rcode):
		return m, nil // some servers refuse with a header alone
	case len(m.Question) != 1 || !answers(m.Question[0], asked):
		return nil, errors.New("answer to another question")
	case m.Truncated:
		return m, nil // it may be cut within a record; its records are not used
	case parseErr != nil:
		return nil, fmt.Errorf("not a DNS message: %w", parseErr)
	}
	// The library accepts a message with fewer records than announced, which would drop backends.
	if announced := int(raw[6])<<8 | int(raw[7]); announced != len(m.Answer) { // ANCOUNT; RFC 1035, 4.1.1
		return nil, fmt.Errorf("answer with %d of its %d records", len(m.Answer), announced)
	}
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		if h := rr.Header(); h.Rdlength == 0 && h.Rrtype != dns.TypeOPT { // allowed in updates (RFC 2136, 2.4.1) alone
			return nil, errors.New("answer with a record without data")
		}
	}
	return m, nil
}

// isFailure reports whether a message with that code does not answer the question.
func isFailure(rcode int) bool { return rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError }

func answers(q, asked dns.Question) bool {
	return q.Qtype == asked.Qtype && q.Qclass == asked.Qclass && strings.EqualFold(q.Name, asked.Name)
}
