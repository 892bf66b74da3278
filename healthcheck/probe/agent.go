package probe

import (
	"context"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/limeload/limeload-l4/healthcheck"
)

// maxAgentLine is how long an agent's line may be, its end included.
const maxAgentLine = 256

// An AgentAnswer is what one line of an agent says. The parts that it does not mention are zero, and their former
// values stay. If a line has several words of one kind, the last one counts. It is a plain value.
type AgentAnswer struct {
	Mode   string // ready, drain or maint
	Health string // up or down
	Reason string // of down, in the agent's words; printable
	Weight *int   // a percentage, 0 or more
	// of concurrent sessions, 0 or more; 0 is no limit
	MaxSessions *int
	// Unknown is the first word that means nothing, in quotes and printable; it is ignored otherwise
	Unknown string
}

// AskAgent connects to the agent at t and reads its line. It sends nothing. Its errors are those of a check: they say
// in a few words what went wrong, and those of this machine wrap ErrInconclusive.
func AskAgent(ctx context.Context, t healthcheck.Target) (AgentAnswer, error) {
	k, err := openConn(ctx, t, 0, nil, "")
	if err != nil {
		return AgentAnswer{}, err
	}
	defer k.finish(ctx)
	line, err := readAgentLine(k)
	if err != nil {
		return AgentAnswer{}, k.unanswered(ctx, err)
	}
	return ParseAgent(line), nil
}

// readAgentLine reads a line, and returns it without its end. A line without an end may be cut short ("maxconn:10" of
// 100), and so is an error, as it is for HAProxy.
func readAgentLine(r io.Reader) (string, error) {
	var line [maxAgentLine]byte
	have := 0
	for {
		n, err := r.Read(line[have:])
		if at := strings.IndexAny(string(line[have:have+n]), "\r\n"); at >= 0 {
			return string(line[:have+at]), nil
		}
		have += n
		switch {
		case have == len(line):
			return "", unhealthyf("the agent's line has more than %d bytes", maxAgentLine)
		case err == io.EOF && have > 0:
			return "", unhealthyf("the agent's line has no end: %s", quoted(line[:have]))
		case err != nil:
			return "", err
		}
	}
}

// ParseAgent reads the line of an agent: words between blanks, tabs and commas, in upper or lower case, and what
// follows a word that begins with '#' as the reason (HAProxy's configuration manual, 5.2, agent-check).
func ParseAgent(line string) AgentAnswer {
	var a AgentAnswer
	const between = " \t,"
	for {
		line = strings.TrimLeft(line, between)
		if line == "" {
			break
		}
		if reason, is := strings.CutPrefix(line, "#"); is {
			a.Reason = escaped(strings.Trim(reason, " \t"))
			break
		}
		end := strings.IndexAny(line, between)
		if end < 0 {
			end = len(line)
		}
		if word := line[:end]; !a.take(strings.ToLower(word)) && a.Unknown == "" {
			a.Unknown = quoted([]byte(word))
		}
		line = line[end:]
	}
	if a.Health != "down" {
		a.Reason = ""
	}
	return a
}

// take takes one word over, or returns false if it means nothing.
func (a *AgentAnswer) take(word string) bool {
	switch word {
	case "ready", "drain", "maint":
		a.Mode = word
		return true
	case "up":
		a.Health = word
		return true
	case "down", "stopped", "fail", "failed": // HAProxy knows "fail"; its manual and many agents say "failed", too
		a.Health = "down"
		return true
	}
	if digits, is := strings.CutSuffix(word, "%"); is {
		return number(digits, &a.Weight)
	}
	if digits, is := strings.CutPrefix(word, "maxconn:"); is {
		return number(digits, &a.MaxSessions)
	}
	return false
}

// number reads decimal digits, and nothing else. A number beyond what fits in 32 bits is as good as the greatest one.
func number(digits string, to **int) bool {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return false
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		n = math.MaxInt32
	}
	*to = new(int(n))
	return true
}
