package harness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A DNSPerf has dnsperf's report of a run.
type DNSPerf struct {
	Sent, Completed, Lost int
	Codes                 map[string]int // answers by their code, such as NOERROR
	Rate                  float64        // answers per second
	Text                  string         // all that it printed
}

// RunDNSPerf asks the server at address these questions, each as "name type", in turn, with further arguments for
// dnsperf.
func RunDNSPerf(t testing.TB, address string, questions []string, args ...string) DNSPerf {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "questions")
	if err := os.WriteFile(file, []byte(strings.Join(questions, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := MustRun(t, Command{Path: Tool(t, "dnsperf"), Args: append([]string{"-s", host, "-p", port, "-d", file},
		args...)})
	p, err := parseDNSPerf(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

var (
	dnsperfCount = regexp.MustCompile(`(?m)^ *Queries (sent|completed|lost): *(\d+)`)
	dnsperfRate  = regexp.MustCompile(`(?m)^ *Queries per second: *([\d.]+)`)
	dnsperfCodes = regexp.MustCompile(`(?m)^ *Response codes: *(.*)$`)
	dnsperfCode  = regexp.MustCompile(`(\w+) (\d+) \(`)
)

func parseDNSPerf(text string) (DNSPerf, error) {
	p := DNSPerf{Codes: map[string]int{}, Text: text}
	counts := map[string]int{}
	for _, m := range dnsperfCount.FindAllStringSubmatch(text, -1) {
		counts[m[1]], _ = strconv.Atoi(m[2]) // digits, and fewer than an int has
	}
	rate := dnsperfRate.FindStringSubmatch(text)
	if len(counts) != 3 || rate == nil {
		return p, fmt.Errorf("dnsperf's statistics are not as expected")
	}
	p.Sent, p.Completed, p.Lost = counts["sent"], counts["completed"], counts["lost"]
	var err error
	if p.Rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return p, fmt.Errorf("dnsperf's rate: %w", err)
	}
	if line := dnsperfCodes.FindStringSubmatch(text); line != nil {
		for _, m := range dnsperfCode.FindAllStringSubmatch(line[1], -1) {
			p.Codes[m[1]], _ = strconv.Atoi(m[2])
		}
	}
	return p, nil
}
