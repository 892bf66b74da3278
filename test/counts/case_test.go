package counts

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The programs that are counted.
const (
	limeload = "limeload-l4"
	haproxy  = "haproxy"
	nginx    = "nginx"
)

// A work is one kind of work whose calls are counted.
type work struct {
	name  string // in testdata/counts.json
	title string // in docs/performance.md: what one unit is

	// config returns the configuration of each program that does the work.
	config map[string]string

	// open prepares a world and returns what does one unit of the work.
	open func(w *world) (unit func())

	// share is how much of a count may differ from run to run: bulk comes in pieces whose size nobody controls.
	share float64
}

// requestBytes is the length of a request, and of its answer.
const requestBytes = 64

// bulkBytes is the length of one piece of bulk.
const bulkBytes = 1 << 20

// works returns all kinds of work, in the order of the table.
func works() []work {
	return append(append(streamWorks(), tlsWorks()...), datagramWorks()...)
}

func streamWorks() []work {
	tcp, large := streams("", "", ""), streams("", haproxySplice, "")
	return []work{
		{name: "request", title: "a request on a kept connection", config: tcp, open: requests},
		{name: "connection", title: "a connection: connect, request, answer, close", config: tcp, open: connections},
		{name: "bulk-in", title: "1 MiB, client to backend", config: large, open: bulk(true), share: bulkShare},
		{name: "bulk-out", title: "1 MiB, backend to client", config: large, open: bulk(false), share: bulkShare},
		{
			name: "refused-reset", title: "a connect over a limit, reset", open: refusals,
			config: streams("[listener.main.limits]\nclient_sessions = 1\n", haproxyRefuse, nginxRefuse),
		},
		{
			name: "refused-drop", title: "the same, dropped without a word", open: drops,
			config: only("max_sessions = 1\n[listener.main.limits]\nover_limit = \"drop\"\n"),
		},
		{
			name: "connection-log", title: "a connection with an access line", open: spaced,
			config: map[string]string{limeload: strings.Replace(limeloadOf("tcp", "", ""), quiet, accessLog, 1)},
		},
		{
			name: "connection-proxy", title: "a connection with a PROXY header to the backend", open: proxied,
			config: map[string]string{
				limeload: limeloadOf("tcp", "", "send_proxy = \"v2\"\n"),
				haproxy:  haproxyOf("LISTEN", "", "send-proxy-v2"),
			},
		},
		{
			name: "connection-limits", title: "a connection with limits of its client and of all", open: connections,
			config: only("[listener.main.limits]\nclient_sessions = 100\nclient_rate = \"1000000/s burst 1000000\"\n" +
				"rate = \"1000000/s burst 1000000\"\n"),
		},
		{
			name: "request-bandwidth", title: "a request with a bandwidth", open: requests,
			config: only("[listener.main.limits]\nsession_bandwidth = \"100MiB/s\"\nclient_bandwidth = \"100MiB/s\"\n"),
		},
	}
}

func tlsWorks() []work {
	config := map[string]string{
		limeload: limeloadOf("tcp", "[listener.main.tls]\ncertificates = [{ cert = \"CERTIFICATE\", key = \"KEY\" }]\n", ""),
		haproxy:  haproxyOf("LISTEN ssl crt BOTH", "", ""),
		nginx: nginxOf("LISTEN ssl reuseport", "", "ssl_certificate CERTIFICATE; ssl_certificate_key KEY; "+
			"ssl_protocols TLSv1.2 TLSv1.3;"),
	}
	return []work{
		{name: "tls-request", title: "a request over TLS 1.3", config: config, open: func(w *world) func() {
			client := tls.Client(w.dial(), clientTLS(nil))
			check(w.t, client.Handshake())
			backend := w.accept()
			return func() {
				w.move(client, backend, requestBytes)
				w.move(backend, client, requestBytes)
			}
		}},
		{name: "tls-full", title: "a connection of TLS 1.3, full handshake", config: config, open: func(w *world) func() {
			return func() { _, end := w.dialTLS(clientTLS(nil)); end() }
		}},
		{name: "tls-resumed", title: "the same, resumed", config: config, open: func(w *world) func() {
			config := clientTLS(tls.NewLRUClientSessionCache(1))
			_, end := w.dialTLS(config)
			end()
			return func() {
				client, end := w.dialTLS(config)
				if !client.ConnectionState().DidResume {
					w.t.Fatal("the session was not resumed")
				}
				end()
			}
		}},
	}
}

func datagramWorks() []work {
	flows := map[string]string{
		limeload: limeloadOf("udp", "", ""), nginx: nginxOf("LISTEN udp reuseport rcvbuf=4m", "", "proxy_timeout 30s;"),
	}
	once := map[string]string{
		limeload: limeloadOf("udp", "responses = 1\n", ""),
		nginx:    nginxOf("LISTEN udp reuseport rcvbuf=4m", "", "proxy_timeout 30s; proxy_responses 1;"),
	}
	const profile = "profile = \"dns\"\n"
	const cache = profile + "[listener.main.cache]\nmax_entries = 10000\n"
	return []work{
		{name: "datagram", title: "a datagram of a known flow, and its answer", config: flows, open: datagrams(echoed)},
		{
			name: "train", title: fmt.Sprintf("%d datagrams in one train, and as many back", trainDatagrams),
			config: flows,
			open: func(w *world) func() {
				c := w.client()
				w.segment(c)
				w.segment(w.packet)
				return func() { w.exchangeTrains(c) }
			},
		},
		{
			name: "flow", title: "a flow of one datagram and its answer", config: once,
			open: func(w *world) func() {
				return func() {
					c := w.client()
					w.ask(c, make([]byte, requestBytes), echoed)
					check(w.t, c.Close())
				}
			},
		},
		{
			name: "dns", title: "a DNS question, relayed", open: questions,
			config: map[string]string{limeload: limeloadOf("udp", profile, ""), nginx: once[nginx]},
		},
		{
			name: "dns-cached", title: "a DNS question, answered from the cache", open: known,
			config: map[string]string{limeload: limeloadOf("udp", cache, "")},
		},
		{
			name: "dns-tcp", title: "a DNS question over a kept TCP connection, relayed", open: framedQuestions,
			config: map[string]string{limeload: limeloadOf("tcp", cache, "")},
		},
	}
}

func requests(w *world) func() {
	client := w.dial()
	backend := w.accept()
	return func() {
		w.move(client, backend, requestBytes)
		w.move(backend, client, requestBytes)
	}
}

func connections(w *world) func() { return func() { w.connection(0) } }

// spaced leaves time between connections, so that each line is written by itself: those within a few milliseconds are
// written together.
func spaced(w *world) func() {
	return func() {
		time.Sleep(10 * time.Millisecond)
		w.connection(0)
	}
}

// proxyHeader is the length of a PROXY header of version 2 for IPv4 (PROXY protocol, 2.2).
const proxyHeader = 28

func proxied(w *world) func() { return func() { w.connection(proxyHeader) } }

// connection does the work of a whole connection. header bytes reach the backend before those of the client.
func (w *world) connection(header int) {
	w.t.Helper()
	client := w.dial()
	backend := w.accept()
	_, err := client.Write(make([]byte, requestBytes))
	check(w.t, err)
	_, err = io.ReadFull(backend, make([]byte, header+requestBytes))
	check(w.t, err)
	w.settle()
	w.move(backend, client, requestBytes)
	w.end(client, backend)
}

func bulk(in bool) func(w *world) func() {
	return func(w *world) func() {
		client := w.dial()
		backend := w.accept()
		if in {
			return func() { w.pour(client, backend, bulkBytes) }
		}
		return func() { w.pour(backend, client, bulkBytes) }
	}
}

// refusals has one client whose session takes the only place.
func refusals(w *world) func() {
	w.dial()
	w.accept()
	return w.refused
}

func drops(w *world) func() {
	w.dial()
	w.accept()
	for range droppedBefore {
		w.ignored()
	}
	return w.ignored
}

// droppedBefore is more than the dropped connections that a balancer with so few descriptors keeps: from then on each
// further one ends an older one.
const droppedBefore = descriptors / 8

func datagrams(answer func([]byte) []byte) func(w *world) func() {
	return func(w *world) func() {
		c := w.client()
		return func() { w.ask(c, make([]byte, requestBytes), answer) }
	}
}

// question returns a question for a name that was not asked for before.
func (w *world) question() []byte {
	w.number++
	return w.pack(new(dns.Msg).SetQuestion(fmt.Sprintf("h%d.counts.test.", w.number), dns.TypeA))
}

func (w *world) pack(m *dns.Msg) []byte {
	w.t.Helper()
	b, err := m.Pack()
	check(w.t, err)
	return b
}

// answer returns the answer to a question.
func (w *world) answer(question []byte) []byte {
	w.t.Helper()
	var q dns.Msg
	check(w.t, q.Unpack(question))
	a := new(dns.Msg).SetReply(&q)
	record, err := dns.NewRR(q.Question[0].Name + " 3600 A 192.0.2.1")
	check(w.t, err)
	a.Answer = []dns.RR{record}
	return w.pack(a)
}

func questions(w *world) func() {
	c := w.client()
	return func() { w.ask(c, w.question(), w.answer) }
}

func known(w *world) func() {
	c := w.client()
	question := w.question()
	w.ask(c, question, w.answer)
	return func() {
		_, err := c.Write(question)
		check(w.t, err)
		w.hear(c, 1)
	}
}

func framedQuestions(w *world) func() {
	client := w.dial()
	var backend *net.TCPConn
	return func() {
		w.writeFrame(client, w.question())
		if backend == nil {
			backend = w.accept()
		}
		question := w.readFrame(backend)
		w.settle()
		w.writeFrame(backend, w.answer(question))
		w.readFrame(client)
		w.settle()
	}
}

// writeFrame sends a message with its length in front (RFC 1035, 4.2.2).
func (w *world) writeFrame(c io.Writer, message []byte) {
	w.t.Helper()
	_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	check(w.t, err)
}

func (w *world) readFrame(c io.Reader) []byte {
	w.t.Helper()
	var length [2]byte
	_, err := io.ReadFull(c, length[:])
	check(w.t, err)
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err = io.ReadFull(c, message)
	check(w.t, err)
	return message
}
