package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A traffic is a kind of traffic, for which a balancer is configured.
type traffic string

const (
	trafficTCP traffic = "tcp"
	// questions to a name server by UDP; a client's flow stays for its next question
	trafficDNS       traffic = "dns"
	trafficDNSOnce   traffic = "dns-once"   // the same; a flow ends with its answer
	trafficDNSSingle traffic = "dns-single" // the same; each question by itself, as the balancer does that best
	trafficDNSCached traffic = "dns-cached" // the same; the balancer answers from a cache
	trafficTrains    traffic = "trains"     // trains of datagrams, by UDP
	// TLS that the balancer terminates, with a certificate of that kind; plain TCP to the backends
	trafficTLSECDSA traffic = "tls-ecdsa"
	trafficTLSRSA   traffic = "tls-rsa"
	// Postgres by plain TCP, and trafficTLSECDSA on a second listener, which clients flood with handshakes
	trafficPostgres traffic = "postgres"

	trafficPostgresOne traffic = "postgres-one" // Postgres by plain TCP on the only listener
	trafficTrainsOnce  traffic = "trains-once"  // trains, where a flow ends with its answer
	trafficRedis       traffic = "redis"        // Redis by plain TCP
	trafficMeter       traffic = "meter"        // plain TCP to backends that measure how steadily bytes come
)

func (t traffic) udp() bool { return t.dns() || t == trafficTrains || t == trafficTrainsOnce }

// tls reports whether the balancer terminates TLS on its only listener.
func (t traffic) tls() bool { return t == trafficTLSECDSA || t == trafficTLSRSA }

func (t traffic) dns() bool {
	switch t {
	case trafficDNS, trafficDNSOnce, trafficDNSSingle, trafficDNSCached:
		return true
	}
	return false
}

// serverOf returns the traffic whose backends serve t, too.
func (t traffic) serverOf() traffic {
	switch {
	case t.dns():
		return trafficDNS
	case t.tls():
		return trafficTCP
	case t == trafficPostgresOne:
		return trafficPostgres
	case t == trafficTrainsOnce:
		return trafficTrains
	}
	return t
}

// servers returns every traffic whose backends t needs.
func (t traffic) servers() []traffic {
	if t == trafficPostgres {
		return []traffic{t, trafficFlood.serverOf()}
	}
	return []traffic{t.serverOf()}
}

// trafficFlood is the traffic of the second listener of trafficPostgres.
const trafficFlood = trafficTLSECDSA

// ask sends one request of this traffic to addr and waits for its answer.
func (t traffic) ask(ctx context.Context, addr netip.AddrPort) error {
	switch {
	case t.dns():
		return askDNS(ctx, addr)
	case t.udp():
		return askTrain(ctx, addr)
	case t.tls():
		return askTLS(ctx, addr)
	case t.serverOf() == trafficPostgres:
		return askPostgres(ctx, addr)
	case t == trafficRedis:
		return askRedis(ctx, addr)
	case t == trafficMeter:
		return askMeter(ctx, addr)
	}
	return ask(ctx, addr)
}

// datagramPatience is how long to wait for the answer to a datagram, which is lost if it was sent before the balancer
// had its socket.
const datagramPatience = 200 * time.Millisecond

// askDatagram sends one datagram and returns the first that comes back.
func askDatagram(ctx context.Context, addr netip.AddrPort, datagram []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp4", addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(datagramPatience)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(datagram); err != nil {
		return nil, err
	}
	answer := make([]byte, 1<<16)
	n, err := conn.Read(answer)
	return answer[:n], err
}

func askDNS(ctx context.Context, addr netip.AddrPort) error {
	name, err := dnsmessage.NewName(questionName(0))
	if err != nil {
		return err
	}
	question := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	text, err := question.Pack()
	if err != nil {
		return err
	}
	text, err = askDatagram(ctx, addr, text)
	if err != nil {
		return err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(text); err != nil {
		return err
	}
	if answer.ID != 1 || answer.RCode != dnsmessage.RCodeSuccess || len(answer.Answers) != 1 {
		return fmt.Errorf("answer to a question is %v", answer.GoString())
	}
	return nil
}

func askTrain(ctx context.Context, addr netip.AddrPort) error {
	const sequence = 1
	text, err := askDatagram(ctx, addr, train{sequence: sequence, out: trainHead}.head())
	if err != nil {
		return err
	}
	if got, ok := parseTrain(text); !ok || got.sequence != sequence {
		return errors.New("the answer is to another train")
	}
	return nil
}
