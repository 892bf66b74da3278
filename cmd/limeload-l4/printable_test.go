package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/conf"
)

// bidi is a text that a terminal shows as "user gpj.exe" or the like, with the characters of each kind.
const bidi = "a\u202eb\u2066c\u200ed\u061ce\ufefff\u0085g\u2028h\U000e0001i\u007fj é ü 漢 😀"

// TestLogIsPrintable: in either form, the log has no characters that are invisible or shown as something else.
func TestLogIsPrintable(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var out bytes.Buffer
		log, w := newLog(conf.Log{Format: format}, &out)
		go w.run()
		log.Info().Str("backend", bidi).Strs("list", []string{bidi}).Any("any", map[string]string{bidi: bidi}).Msg("x")
		w.Close()
		if i := strings.IndexFunc(out.String(), unprintable); i >= 0 {
			t.Errorf("%s: %q is in the log:\n%s", format, out.String()[i:i+4], out.String())
		}
		if !strings.Contains(out.String(), `\u202e`) || !strings.Contains(out.String(), "é ü 漢 😀") {
			t.Errorf("%s: the log is %s", format, out.String())
		}
		if format == "json" {
			var line struct{ Backend string }
			if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Backend != bidi {
				t.Errorf("the line reads as %q, error %v", line.Backend, err)
			}
		}
	}
}

// TestOutputIsPrintable: neither has the output of commands, or their errors.
func TestOutputIsPrintable(t *testing.T) {
	good := strings.Replace(goodConfig, "[pool.web]",
		"[pool.web]\ndiscovery = { type = \"file\", file = \"/nowhere/"+`\u202eabc\u0085`+"\" }", 1)
	for _, args := range [][]string{
		{"check", "--config", write(t, good)},
		{"check", "--config", "/nowhere/" + bidi},
		{"check", "--config", write(t, "[listener.web]\naddress = \"[fe80::1%\\u202e]:80\"\n\"\u202e\" = 1\n")},
		{"check", "--" + bidi}, {bidi}, {"status", bidi}, {"status", "--admin", bidi}, {"completion", bidi},
		{"backends", "add", "--name", "x"},
		{"man", bidi}, {"simulate", "--pool", bidi, "--config", write(t, goodConfig)},
	} {
		var stdout, stderr bytes.Buffer
		run(t.Context(), append([]string{"limeload-l4"}, args...), &stdout, &stderr)
		for _, out := range []string{stdout.String(), stderr.String()} {
			if i := strings.IndexFunc(out,
				func(r rune) bool { return unprintable(r) || r < ' ' && r != '\n' }); i >= 0 &&
				!strings.Contains(out, "Usage: ") {
				t.Errorf("%q prints %q", args, out[i:])
			}
		}
		if stdout.Len()+stderr.Len() == 0 {
			t.Errorf("%q prints nothing", args)
		}
	}
}
