package wire

import (
	"bytes"
	"testing"
)

// dnsQuery asks for the address of a.example; extra is put behind the question.
func dnsQuery(extra string, additional byte) []byte {
	head := "\x12\x34\x01\x10\x00\x01\x00\x00\x00\x00\x00" + string(rune(additional))
	return []byte(head + "\x01a\x07example\x00\x00\x01\x00\x01" + extra)
}

const dnsEDNS = "\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00"

// TestAppendDNSError holds the answer's bytes: the question again, the code, and with EDNS the extended error.
func TestAppendDNSError(t *testing.T) {
	why := &DNSError{Code: DNSRefused, Extended: DNSOther, Text: "full"}
	const question = "\x01a\x07example\x00\x00\x01\x00\x01"
	for _, tc := range []struct{ name, question, want string }{
		{"plain", string(dnsQuery("", 0)), "\x12\x34\x81\x95\x00\x01\x00\x00\x00\x00\x00\x00" + question},
		{"EDNS", string(dnsQuery(dnsEDNS, 1)), "\x12\x34\x81\x95\x00\x01\x00\x00\x00\x00\x00\x01" + question +
			"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x0a\x00\x0f\x00\x06\x00\x00full"},
		{"no question", "\x12\x34\x28\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"\x12\x34\xa8\x05\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"a pointer for a name", "\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",
			"\x12\x34\x80\x05\x00\x00\x00\x00\x00\x00\x00\x00"},
	} {
		if got := AppendDNSError([]byte("before"), []byte(tc.question), why); string(got) != "before"+tc.want {
			t.Errorf("%s: got %q", tc.name, got)
		}
	}
}

// TestAddDNSError holds that an error is added to what has no records, for a client that knows EDNS.
func TestAddDNSError(t *testing.T) {
	why := &DNSError{Code: DNSFailed, Extended: DNSUnreachable, Text: "none"}
	with, without := dnsQuery(dnsEDNS, 1), dnsQuery("", 0)
	plain := AppendDNSError(nil, without, why)
	if got := AddDNSError(bytes.Clone(plain), without, why); !bytes.Equal(got, plain) {
		t.Errorf("without EDNS: %q", got)
	}
	whole := AppendDNSError(nil, with, why)
	if got := AddDNSError(bytes.Clone(plain), with, why); !bytes.Equal(got, whole) {
		t.Errorf("with EDNS: %q, expected %q", got, whole)
	}
	if got := AddDNSError(bytes.Clone(whole), with, why); !bytes.Equal(got, whole) {
		t.Errorf("a second time: %q", got)
	}
}

// FuzzDNSError holds that every question gets an answer that is one, and not much larger.
func FuzzDNSError(f *testing.F) {
	f.Add(dnsQuery("", 0))
	f.Add(dnsQuery(dnsEDNS, 1))
	f.Add(make([]byte, DNSHeaderBytes))
	why := &DNSError{Code: DNSFailed, Extended: DNSNotReady, Text: "why"}
	f.Fuzz(func(t *testing.T, question []byte) {
		if !IsDNSQuestion(question) {
			return
		}
		answer := AppendDNSError(nil, question, why)
		if !IsDNSAnswer(answer) || len(answer) > len(question)+20 || !bytes.Equal(answer[:2], question[:2]) {
			t.Fatalf("%x to %x", answer, question)
		}
		if extended := AddDNSError(bytes.Clone(answer), question, why); !bytes.Equal(extended, answer) {
			t.Fatalf("%x becomes %x", answer, extended)
		}
	})
}
