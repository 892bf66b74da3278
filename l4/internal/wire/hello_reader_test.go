package wire

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestHelloExtensions has extensions that are ignored, and those that are malformed.
func TestHelloExtensions(t *testing.T) {
	const a, grease = "a.example", "\x0a\x0a"
	label := strings.Repeat("l", maxLabel)
	alpn := func(names string) string { return extension(extensionALPN, vector16(names)) }
	for name, tc := range map[string]struct {
		extensions string
		name       string
		protocols  []string
		err        error
	}{
		"none":                 {"", "", nil, nil},
		"GREASE":               {extension(0x0a0a, "") + sni(a) + extension(0xfafa, "\x00"), a, nil, nil},
		"GREASE protocol":      {alpn("\x02" + grease + "\x02h2"), "", []string{grease, "h2"}, nil},
		"unknown":              {extension(0xff01, "\x00") + sni(a) + extension(65535, "x"), a, nil, nil},
		"name last":            {alpn("\x02h2") + sni(a), a, []string{"h2"}, nil},
		"upper case":           {sni("A.eXample"), a, nil, nil},
		"underscore":           {sni("_a.b-c.example"), "_a.b-c.example", nil, nil},
		"longest label":        {sni(label + ".b"), label + ".b", nil, nil},
		"digits":               {sni("1.2.3.4.example"), "1.2.3.4.example", nil, nil},
		"another type of name": {extension(0, vector16("\x01"+vector16("?")+"\x00"+vector16(a))), a, nil, nil},
		"only another type":    {extension(0, vector16("\x01"+vector16("?"))), "", nil, nil},

		"IPv4":             {sni("192.0.2.1"), "", nil, ErrServerName},
		"part of an IPv4":  {sni("a.1"), "", nil, ErrServerName},
		"IPv6":             {sni("2001:db8::1"), "", nil, ErrServerName},
		"IPv6 in brackets": {sni("[::1]"), "", nil, ErrServerName},
		"final dot":        {sni("a.example."), "", nil, ErrServerName},
		"first dot":        {sni(".example"), "", nil, ErrServerName},
		"two dots":         {sni("a..b"), "", nil, ErrServerName},
		"a dot":            {sni("."), "", nil, ErrServerName},
		"zero byte":        {sni("a\x00.example"), "", nil, ErrServerName},
		"line break":       {sni("a\nb"), "", nil, ErrServerName},
		"UTF-8":            {sni("ä.example"), "", nil, ErrServerName},
		"long label":       {sni(label + "l.b"), "", nil, ErrServerName},
		"long name":        {sni(strings.Repeat("a.", 127)), "", nil, ErrServerName},
		"very long name":   {sni(strings.Repeat("a", 300)), "", nil, ErrServerName},
		"empty name":       {sni(""), "", nil, ErrMalformedHello},
		"two names": {extension(0, vector16("\x00"+vector16(a)+"\x00"+vector16(a))), "", nil,
			ErrMalformedHello},
		"no names":          {extension(0, vector16("")), "", nil, ErrMalformedHello},
		"empty server_name": {extension(0, ""), "", nil, ErrMalformedHello},
		"bytes after names": {extension(0, vector16("\x00"+vector16(a))+"x"), "", nil, ErrMalformedHello},
		"name cut":          {extension(0, vector16("\x00\x00\x09a")), "", nil, ErrMalformedHello},
		"name twice":        {sni(a) + sni(a), "", nil, ErrMalformedHello},
		"ALPN twice":        {alpn("\x02h2") + alpn("\x02h2"), "", nil, ErrMalformedHello},
		"unknown twice":     {extension(65535, "") + sni(a) + extension(65535, ""), "", nil, ErrMalformedHello},
		"GREASE twice":      {extension(0x0a0a, "") + extension(0x0a0a, ""), "", nil, ErrMalformedHello},
		"no protocols":      {alpn(""), "", nil, ErrMalformedHello},
		"empty ALPN":        {extension(extensionALPN, ""), "", nil, ErrMalformedHello},
		"empty protocol":    {alpn("\x02h2\x00"), "", nil, ErrMalformedHello},
		"protocol cut":      {alpn("\x03h2"), "", nil, ErrMalformedHello},
		"bytes after ALPN":  {extension(extensionALPN, vector16("\x02h2")+"x"), "", nil, ErrMalformedHello},
		"extension cut":     {"\x00\x2b\x00\x01", "", nil, ErrMalformedHello},
		"type cut":          {"\x00", "", nil, ErrMalformedHello},
	} {
		t.Run(name, func(t *testing.T) {
			b := inRecords(withExtensions(tc.extensions))
			hello, need, err := ClientHello(b)
			if string(hello.ServerName()) != tc.name || !slices.Equal(protocolsOf(hello), tc.protocols) ||
				need != 0 || !errors.Is(err, tc.err) {
				t.Errorf("%q, %q, need %d, %v", hello.ServerName(), protocolsOf(hello), need, err)
			}
			if err == nil {
				checkPrefixes(t, b)
			}
		})
	}
}

// TestHelloBody has mistakes in front of the extensions, and a hello without any.
func TestHelloBody(t *testing.T) {
	const random, suites, compression = "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr", "\x00\x02\x13\x01", "\x01\x00"
	for name, tc := range map[string]struct {
		body string
		err  error
	}{
		"no extensions":      {"\x03\x01" + random + "\x00" + suites + compression, nil},
		"session id":         {"\x03\x03" + random + "\x20" + random + suites + compression, nil},
		"version":            {"\x02\x00" + random + "\x00" + suites + compression, ErrMalformedHello},
		"session id too big": {"\x03\x03" + random + "\x21" + random + "s" + suites + compression, ErrMalformedHello},
		"no suites":          {"\x03\x03" + random + "\x00\x00\x00\x02\x00\x00", ErrMalformedHello},
		"half a suite":       {"\x03\x03" + random + "\x00\x00\x01\x13" + compression, ErrMalformedHello},
		"no compression":     {"\x03\x03" + random + "\x00" + suites + "\x00\x00\x00", ErrMalformedHello},
		"half a length":      {"\x03\x03" + random + "\x00" + suites + compression + "\x00", ErrMalformedHello},
		"bytes behind":       {"\x03\x03" + random + "\x00" + suites + compression + "\x00\x00x", ErrMalformedHello},
		"missing bytes":      {"\x03\x03" + random + "\x00" + suites + compression + "\x00\x01", ErrMalformedHello},
	} {
		message := append([]byte{messageClientHello, 0, 0, byte(len(tc.body))}, tc.body...)
		if _, need, err := ClientHello(inRecords(message)); need != 0 || !errors.Is(err, tc.err) {
			t.Errorf("%s: need %d, %v, want %v", name, need, err, tc.err)
		}
	}
}
