package convert

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzConvert: whatever a configuration holds, it is converted to a text in UTF-8 with bounded notes of one line each.
func FuzzConvert(f *testing.F) {
	for _, file := range configurations(f) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), kindOf(file) == Nginx)
	}
	f.Add("listen a\n bind :1 ssl crt\n server ${A-b}:1 check port\n acl x\n use_backend b if { !", false)
	f.Add("stream { map $ssl_preread_server_name $x { default \"; } server { listen [; proxy_pass $x;", true)
	f.Fuzz(func(t *testing.T, text string, nginx bool) {
		kind := HAProxy
		if nginx {
			kind = Nginx
		}
		r, err := Convert([]byte(text), Options{Kind: kind, File: "x", Read: func(string) (map[string][]byte, error) {
			return map[string][]byte{"included": []byte("stream { server { listen 1; include y; } }")}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(r.TOML) || len(r.Notes) > maxNotes+1 {
			t.Errorf("%d notes", len(r.Notes))
		}
		for _, n := range r.Notes {
			if strings.Contains(n.String(), "\n") || n.Line < 1 && n.What != "..." || len(n.String()) > 2000 {
				t.Errorf("%q", n.String())
			}
		}
	})
}
