package main

import (
	"encoding/binary"

	"golang.org/x/net/dns/dnsmessage"
)

// A datagramKind is what a load generator sends by UDP.
type datagramKind string

const (
	datagramJunk     datagramKind = "junk"     // no backend answers it
	datagramTrain    datagramKind = "train"    // the shortest train, which is answered with another one
	datagramQuestion datagramKind = "question" // a DNS question
)

// datagrams makes datagrams of a kind. It belongs to one goroutine; see newDatagrams.
type datagrams struct {
	kind      datagramKind
	train     []byte
	questions [][]byte // for all names in turn, so that no two that are under way are alike
}

func newDatagrams(kind datagramKind) (*datagrams, error) {
	d := &datagrams{kind: kind, train: train{out: trainHead}.head()}
	if kind == datagramJunk {
		d.train = make([]byte, trainHead)
	}
	if kind != datagramQuestion {
		return d, nil
	}
	for i := range questionCount {
		text, err := packQuestion(i)
		if err != nil {
			return nil, err
		}
		d.questions = append(d.questions, text)
	}
	return d, nil
}

// packQuestion returns a question for one of the names, without an ID.
func packQuestion(i int) ([]byte, error) {
	name, err := dnsmessage.NewName(questionName(i))
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// next returns the datagram with a sequence number. It is valid until the next call.
func (d *datagrams) next(sequence uint64) []byte {
	switch d.kind {
	case datagramTrain:
		binary.BigEndian.PutUint64(d.train[8:], sequence)
	case datagramQuestion:
		q := d.questions[sequence%uint64(len(d.questions))]
		binary.BigEndian.PutUint16(q, uint16(sequence))
		return q
	}
	return d.train
}

// answers returns the number of the datagram that b answers, as far as b has it: all 64 bits with a train, the last 16
// with a question. It reports false if b is no answer, or one without success.
func (d *datagrams) answers(b []byte) (uint64, bool) {
	switch d.kind {
	case datagramTrain:
		t, ok := parseTrain(b)
		return t.sequence, ok
	case datagramQuestion:
		if len(b) < 12 || b[2]&0x80 == 0 || b[3]&0x0f != 0 {
			return 0, false
		}
		return uint64(binary.BigEndian.Uint16(b)), true
	}
	return 0, false
}
