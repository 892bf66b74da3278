package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A document is a page whose configurations and commands a test runs, one after the other, in one shell:
//
//   - a block toml, conf or ini that begins with a comment of one word is the file of that name: it is written. The
//     settings of one in /etc/sysctl.d must exist. A block ini that begins with [Service] is a drop-in for the unit,
//     which systemd must accept
//   - each line of a block sh is a command, which must succeed
//   - each line of a block console that begins with "$ " is a command, and the lines below it are what it prints. If a
//     command only looks, it is run until it prints that, as a reader looks again after a second
//   - other blocks are not run
//
// Ports from 15000 to 19999 stand for free ones. All of them have five digits, so that tables stay as they are.
type document struct {
	name string
	user string // of Debian's package of the server that the page starts
}

var (
	documentBlock = regexp.MustCompile("(?ms)^```(toml|conf|ini|sh|console)\n(.*?)^```$")
	documentFile  = regexp.MustCompile(`^[#;] ([a-z0-9._/-]+)\n`)
	documentPort  = regexp.MustCompile(`\b1[5-9]\d{3}\b`)
	// documentLooks finds commands that may be run again, and documentActs those of them that may not.
	documentLooks = regexp.MustCompile(`^limeload-l4 (status|backends( list)?|sessions( list)?|explain|clients|dns|` +
		`check|plan|fleet( list| changes| verify)?|access (list|check))( -|$| \d| \|)|` +
		`^(grep|tail|curl|ss|dig|sysctl|nstat|psql|mariadb|redis-cli .*(ping|info|get ))\b`)
	documentActs = regexp.MustCompile(`INSERT|CREATE|SELECT pg_`)
	// documentFigures finds commands that print figures of the machine.
	documentFigures = regexp.MustCompile(`^((ss|nstat|sysctl)\b|curl .*(process_|_total))|/proc/|wc -l$`)
)

// documentVolatile is what differs from one run of a document to the next, besides what steady leaves out.
var documentVolatile = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:(3[2-9]|[456]\d)\d{3}\b`), "127.0.0.1:CLIENT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+( UTC)?`), "TIME"},
	{regexp.MustCompile(`\b(pid|PID|uid)([ =])\d+`), "$1$2 N"},
	{regexp.MustCompile(`\b((?:connect_|first_byte_|queue_|drain_)?(?:duration|time|timeout)"?[=:])[0-9.e-]+`), "$1 N"},
	{regexp.MustCompile(`\b(bytes_(?:in|out)"?[=:])\d+`), "$1 N"},
	{regexp.MustCompile(`PortProcess`), "Port Process"}, // ss before iproute2 6
	{regexp.MustCompile(`("count":)\d+`), "$1 N"},
	{regexp.MustCompile(`( ago +lb\d +)(\S+)( +\w+/)`), "$1 WHO $3"},                  // has changed something
	{regexp.MustCompile(`(?m)^(lb\d .* )\S+( +(?:this node|its |-$))`), "$1 HOST $2"}, // of a node
	{regexp.MustCompile(`(not connected for )[0-9smhd]+`), "$1 AGE"},
	{regexp.MustCompile(`configuration is [0-9a-f]{12}`), "configuration is SUM"},
	{regexp.MustCompile(`\b(session"?[=:]"?)[0-9a-f]{16}`), "$1 N"},
}

// steadyDocument is a document's output without what is volatile.
func steadyDocument(text string) string {
	for _, v := range documentVolatile {
		text = v.pattern.ReplaceAllString(text, v.word)
	}
	return steady(text)
}

// samePrinted says whether a command has printed what the page shows.
func samePrinted(command, got, want string) bool {
	// Figures come first: steadyDocument takes the hexadecimal 3d for an age.
	if documentFigures.MatchString(command) {
		figure := regexp.MustCompile(`\b[0-9a-f]{8}\b|\d[\d.e+]*`)
		got, want = figure.ReplaceAllString(got, "N"), figure.ReplaceAllString(want, "N")
	}
	return steadyDocument(got) == steadyDocument(want)
}

// TestSamePrinted holds that figures in hexadecimal digits are no ages: 3d is not three days.
func TestSamePrinted(t *testing.T) {
	const command = "cat /proc/net/softnet_stat"
	for _, got := range []string{"2166e24a 00000ec6 0000003d", "2166e24a 00000ec6 00000032"} {
		if !samePrinted(command, got, "244b5eb0 00000ec6 00000012") {
			t.Errorf("%q is not taken for other figures of the same kind", got)
		}
	}
	if samePrinted(command, "2166e24a 00000ec6", "244b5eb0 00000ec6 00000012") {
		t.Error("a line with a column less is taken for the same")
	}
}

// A reader follows a document.
type reader struct {
	*harness.Shell
	there, back *strings.Replacer // from the document's ports to free ones, and from those to the document's
}

// newReader starts a shell for the page, and chooses its ports.
func newReader(t *testing.T, d document, page string) *reader {
	t.Helper()
	var there, back []string
	shown := documentPort.FindAllString(page, -1)
	slices.Sort(shown)
	for _, port := range slices.Compact(shown) {
		free := strconv.Itoa(harness.FreePort(t))
		there, back = append(there, port, free), append(back, free, port)
	}
	return &reader{
		Shell: harness.StartShell(t, d.user), there: strings.NewReplacer(there...), back: strings.NewReplacer(back...),
	}
}

// follow runs a block of the page, and returns it with what its commands have printed now.
func (r *reader) follow(t *testing.T, kind, block string) string {
	t.Helper()
	switch kind {
	case "sh":
		for _, command := range commandLines(block) {
			if output, code := r.Run(t, r.there.Replace(command)); code != 0 {
				t.Fatalf("%s\nends with exit code %d:\n%s", command, code, output)
			}
		}
		return block
	case "console":
		return r.converse(t, block)
	default:
		switch name := documentFile.FindStringSubmatch(block); {
		case strings.HasPrefix(block, "[Service]\n"):
			checkDropIn(t, block)
		case name == nil:
		case strings.HasPrefix(name[1], "/etc/sysctl.d/"):
			for _, key := range unknownSettings(block) {
				t.Errorf("the kernel has no %s", key)
			}
		default:
			r.WriteFile(t, name[1], r.there.Replace(block))
		}
		return block
	}
}

// checkDropIn checks with systemd a drop-in for the packaged unit.
func checkDropIn(t *testing.T, text string) {
	t.Helper()
	units := unitFolder(t.TempDir())
	unit := units.install(t, unitName, packaged(t, unitName))
	units.install(t, unitName+".d/document.conf", text)
	if output := complaints(t, unit); output != "" {
		t.Errorf("%s\n%s", text, output)
	}
}

// unknownSettings returns the names of a file for sysctl that the kernel does not have.
func unknownSettings(file string) (unknown []string) {
	elsewhere := []string{ // before Linux 6.9 only the first network namespace has them
		"net.core.rmem_max", "net.core.netdev_max_backlog", "net.core.netdev_budget",
	}
	for _, key := range regexp.MustCompile(`(?m)^([a-z0-9._]+) =`).FindAllStringSubmatch(file, -1) {
		_, err := os.Stat("/proc/sys/" + strings.ReplaceAll(key[1], ".", "/"))
		if err != nil && !slices.Contains(elsewhere, key[1]) {
			unknown = append(unknown, key[1])
		}
	}
	return unknown
}

// commandLines returns the commands of a block: its lines, except for comments; a line that ends with a backslash goes
// on in the next one.
func commandLines(block string) (commands []string) {
	for line := range strings.SplitSeq(strings.ReplaceAll(block, "\\\n", "\\\x00"), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			commands = append(commands, strings.ReplaceAll(line, "\x00", "\n"))
		}
	}
	return commands
}

// converse runs the commands of a block, and compares what they print with what the page shows.
func (r *reader) converse(t *testing.T, block string) string {
	t.Helper()
	var written strings.Builder
	for part := range strings.SplitSeq("\n"+block, "\n$ ") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		command, want, _ := strings.Cut(part, "\n")
		got := r.look(t, command, want)
		if samePrinted(command, got, want) {
			got = strings.TrimRight(want, "\n") // an update does not write other times
		} else if !*update {
			t.Errorf("$ %s\nthe page shows\n%s\nit prints\n%s", command, steadyDocument(want), steadyDocument(got))
		}
		if got != "" {
			got += "\n"
		}
		fmt.Fprintf(&written, "$ %s\n%s", command, got)
	}
	return written.String()
}

// look runs a command until it prints what the page shows, if it may be run again.
func (r *reader) look(t *testing.T, command, want string) (got string) {
	t.Helper()
	patience := harness.Patience / 2
	if *update {
		patience = 15 * time.Second // the lease of a node is 12
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // processes outside send no events
		output, _ := r.Run(t, r.there.Replace(command))
		got = r.back.Replace(strings.NewReplacer(r.Dir, ".", "\r", "").Replace(output))
		if samePrinted(command, got, want) || !documentLooks.MatchString(command) ||
			documentActs.MatchString(command) || time.Now().After(deadline) {
			return got
		}
	}
}

// TestDocuments follows each document that shows commands to type, with real servers: the commands work, and print what
// the page shows, apart from times, sizes and ids.
func TestDocuments(t *testing.T) {
	t.Parallel()
	if steadyDocument(`"duration":1.5 a`) != steadyDocument(`"duration":2e-05 a`) ||
		steadyDocument(`"reason":"idle"`) == steadyDocument(`"reason":"drained"`) {
		t.Fatal("the guard does not tell outputs apart")
	}
	if len(unknownSettings("net.core.somaxconn = 1\nnet.core.nothing = 1\n")) != 1 {
		t.Fatal("the guard does not tell settings apart")
	}
	for _, d := range documentsToFollow() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			followDocument(t, d)
		})
	}
}

// documentsToFollow returns all documents that are followed.
func documentsToFollow() []document {
	return []document{
		{"security.md", "redis"},
		{"start-dns.md", "nsd"},
		{"start-fleet.md", "redis"},
		{"start-mqtt.md", "mosquitto"},
		{"start-mysql.md", "mysql"},
		{"start-postgres.md", "postgres"},
		{"start-redis.md", "redis"},
		{"troubleshooting.md", "redis"},
		{"tuning.md", "redis"},
	}
}

func followDocument(t *testing.T, d document) {
	path := filepath.Join("..", "docs", d.name)
	text, err := os.ReadFile(path)
	check(t, err)
	page, n := string(text), 0
	r := newReader(t, d, page)
	written := documentBlock.ReplaceAllStringFunc(page, func(block string) string {
		n++
		parts := documentBlock.FindStringSubmatch(block)
		return fmt.Sprintf("```%s\n%s```", parts[1], r.follow(t, parts[1], parts[2]))
	})
	if n < 4 {
		t.Errorf("%s has %d blocks", d.name, n)
	}
	if *update && !t.Failed() && written != page {
		check(t, os.WriteFile(path, []byte(written), 0o644))
	}
}
