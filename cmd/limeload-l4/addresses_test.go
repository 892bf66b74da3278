package main

import "testing"

func TestAddressList(t *testing.T) {
	for _, tt := range []struct {
		addresses []string
		want      string
	}{
		{nil, ""},
		{[]string{"10.0.0.1:53"}, "10.0.0.1:53"},
		{[]string{"10.0.0.1:53", "[2001:db8::1]:53"}, "10.0.0.1:53 [2001:db8::1]:53"},
		{[]string{"[::]:7", "[::]:8", "[::]:9", "[::]:11", "0.0.0.0:12"}, "[::]:7-9 [::]:11 0.0.0.0:12"},
		{[]string{"[::]:65534", "[::]:65535"}, "[::]:65534-65535"},
		{[]string{"/run/a.sock", "/run/b.sock"}, "/run/a.sock /run/b.sock"},
	} {
		if got := addressList(tt.addresses); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.addresses, got, tt.want)
		}
	}
}
