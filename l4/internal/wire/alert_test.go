package wire

import (
	"crypto/tls"
	"strings"
	"testing"
)

// TestAlert holds that a crypto/tls client understands the alerts.
func TestAlert(t *testing.T) {
	for alert, want := range map[Alert]string{
		AlertDecodeError: "error decoding message", AlertUnrecognizedName: "unrecognized name",
	} {
		c := &recorder{unread: AppendAlert(nil, alert)}
		err := tls.Client(c, &tls.Config{ServerName: "example.com"}).Handshake()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("alert %d: error %v, want %q", alert, err, want)
		}
	}
}
