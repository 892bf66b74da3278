package harness

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shell(script string) Command { return Command{Path: "/bin/sh", Args: []string{"-c", script}} }

func TestProcess(t *testing.T) {
	c := shell(`echo out; echo err >&2; read word; echo "heard $word"; printf unfinished; exit 3`)
	c.Stdin = true
	p := Start(t, c)
	p.WaitStdout(t, "out")
	p.WaitStderr(t, "err")
	p.Say(t, "hello")
	if line := p.WaitStdout(t, "heard"); line != "heard hello" {
		t.Errorf("got %q", line)
	}
	if code := p.Wait(t); code != 3 {
		t.Errorf("exit code %d, expected 3", code)
	}
	if p.Stdout() != "out\nheard hello\nunfinished" || p.Stderr() != "err" {
		t.Errorf("stdout %q, stderr %q", p.Stdout(), p.Stderr())
	}
}

func TestProcessIsKilledAtTheEnd(t *testing.T) {
	var p *Process
	t.Run("starts it", func(t *testing.T) { p = Start(t, Command{Path: "/bin/sleep", Args: []string{"600"}}) })
	select {
	case <-p.Done():
	default:
		t.Error("the process outlived its test")
	}
	if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is still there: %v", err)
	}
}

func TestDescriptorLimit(t *testing.T) {
	c := shell(`ulimit -Sn; ulimit -Hn`)
	c.Descriptors = 50
	if out := MustRun(t, c); out != "50\n50" {
		t.Errorf("limits are %q", out)
	}
}

func TestFigures(t *testing.T) {
	busy := Start(t, shell(`echo up; while :; do :; done`))
	busy.WaitStdout(t, "up")
	Eventually(t, "a busy process uses CPU time", func() error {
		if used := busy.CPUTime(t); used < 50*time.Millisecond {
			return errors.New(used.String())
		}
		return nil
	})
	idle := Start(t, Command{Path: "/bin/cat", Stdin: true})
	idle.Say(t, "up")
	idle.WaitStdout(t, "up")
	before := idle.CPUTime(t)
	<-time.After(100 * time.Millisecond)
	if used := idle.CPUTime(t) - before; used > 50*time.Millisecond {
		t.Errorf("an idle process used %v", used)
	}
	// it may have inherited some from the process that runs the tests
	if d := idle.Descriptors(t); d.Pipes < 3 || d.Total() != d.Pipes+d.Others {
		t.Errorf("descriptors are %+v, expected three pipes", d)
	}
	if anon := idle.AnonMemory(t); anon < 4<<10 || anon > 64<<20 {
		t.Errorf("%d bytes of memory", anon)
	}
}

func TestLeaks(t *testing.T) {
	start := Descriptors{Sockets: map[string]bool{"socket:[1]": true, "socket:[2]": true}, Others: 5}
	for _, tc := range []struct {
		now    Descriptors
		leaked string
	}{
		{start, ""},
		{Descriptors{Sockets: map[string]bool{"socket:[1]": true}, Pipes: 4, Others: 5}, ""},
		{Descriptors{Sockets: map[string]bool{"socket:[1]": true, "socket:[3]": true}, Others: 5},
			"1 sockets more: socket:[3]"},
		{Descriptors{Others: 6}, "6 descriptors that are neither"},
	} {
		err := tc.now.leaks(start)
		if (err == nil) != (tc.leaked == "") || err != nil && !strings.Contains(err.Error(), tc.leaked) {
			t.Errorf("%+v: %v, expected %q", tc.now, err, tc.leaked)
		}
	}
}

func TestLineWriter(t *testing.T) {
	var lines []string
	w := lineWriter{line: func(line string) { lines = append(lines, line) }}
	for _, piece := range []string{"a", "b\nc\n\nd", "e"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("Write returned %d, %v", n, err)
		}
	}
	w.flush()
	w.flush()
	if expected := []string{"ab", "c", "", "de"}; !slices.Equal(lines, expected) {
		t.Errorf("lines %q, expected %q", lines, expected)
	}
}

func TestFeed(t *testing.T) {
	var f feed[int]
	f.add(1)
	found := make(chan int)
	go func() {
		item, next, ok := f.find(1, Patience, func(i int) bool { return i > 2 })
		if !ok || next != 3 {
			item = -1
		}
		found <- item
	}()
	f.add(2)
	f.add(3)
	if got := Receive(t, "the item", found); got != 3 {
		t.Errorf("found %d", got)
	}
	if _, _, ok := f.find(0, time.Millisecond, func(i int) bool { return i > 3 }); ok {
		t.Error("found what is not there")
	}
	f.end()
	if _, _, ok := f.find(0, Patience, func(i int) bool { return i > 3 }); ok {
		t.Error("found what is not there in a feed that has ended")
	}
}

func TestParseLine(t *testing.T) {
	l, err := ParseLine(`{"level":"info","message":"session ended","bytes_in":0,"duration":0.5,"retries":2}`)
	if err != nil || !l.IsAccess() || l.Duration != 0.5 || l.Retries != 2 || !l.Has("bytes_in") || l.Has("bytes_out") {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := ParseLine("panic: no JSON"); err == nil {
		t.Error("a line that is not JSON was accepted")
	}
}

func TestPorts(t *testing.T) {
	seen := map[int]bool{}
	for range 100 {
		port := FreePort(t)
		if seen[port] || port < firstPort || port >= lastPort {
			t.Errorf("port %d was given twice or is out of range", port)
		}
		seen[port] = true
	}
}

func TestSwallow(t *testing.T) {
	s := Swallow(t, Echo)
	var timeout net.Error
	if c, err := net.DialTimeout("tcp", s.Address(), fillTimeout); !errors.As(err, &timeout) || !timeout.Timeout() {
		if err == nil {
			c.Close()
		}
		t.Fatalf("connect: %v, expected it to be swallowed", err)
	}
	served := make(chan error)
	go func() {
		c, err := net.DialTimeout("tcp", s.Address(), Patience)
		if err == nil {
			defer c.Close()
			err = PingPong(c, 10, 100)
		}
		served <- err
	}()
	s.AwaitSYN(t)
	s.Open(t)
	if err := Receive(t, "the answer", served); err != nil {
		t.Error(err)
	}
}

func TestHandlers(t *testing.T) {
	read := func(c net.Conn) (string, error) {
		b, err := io.ReadAll(c)
		return string(b), err
	}
	if got, err := read(Dial(t, Serve(t, Name("b1")).Address())); got != "b1" || err != nil {
		t.Errorf("Name: %q, %v", got, err)
	}
	if got, err := read(Dial(t, Serve(t, CloseAtOnce).Address())); got != "" || err != nil {
		t.Errorf("CloseAtOnce: %q, %v", got, err)
	}
	if c, err := net.Dial("tcp", Serve(t, ResetAtOnce).Address()); err == nil { // the reset may be faster than Dial
		if _, err = read(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("ResetAtOnce: %v", err)
		}
		c.Close()
	}
	c := Dial(t, Serve(t, SpeakFirst("hello")).Address())
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Errorf("SpeakFirst: %v", err)
	}
	if err := PingPong(c, 3, 1000); err != nil {
		t.Errorf("SpeakFirst: %v", err)
	}

	silent := Serve(t, Silent)
	c = Dial(t, silent.Address())
	if err := errors.Join(SendAll(c, "hello"), c.CloseWrite()); err != nil {
		t.Error(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Error(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Silent said %d bytes, %v", n, err)
	}
	if silent.Accepted() != 1 || silent.Open() != 1 {
		t.Errorf("%d accepted, %d open", silent.Accepted(), silent.Open())
	}
}

func TestExchange(t *testing.T) {
	large, small := Traffic{Seed: 1, Size: 2*patternBytes + 1, Chunk: 1 << 20},
		Traffic{Seed: 1, Size: 2*patternBytes + 1, Chunk: 777}
	a, err := large.Send(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := small.Send(io.Discard); err != nil || a != b {
		t.Errorf("the same traffic in other writes is %v and %v, %v", a, b, err)
	}
	other := large
	other.Seed++
	if b, err := other.Send(io.Discard); err != nil || a == b {
		t.Errorf("another seed gives the same bytes, %v", err)
	}

	sent, got, err := Exchange(Dial(t, Serve(t, Echo).Address()), Traffic{Seed: 2, Size: 10 << 20, Chunk: 100_000})
	if err != nil || sent != got || sent.Bytes != 10<<20 {
		t.Errorf("sent %v, got back %v, %v", sent, got, err)
	}
	if err := PingPong(Dial(t, Serve(t, Name("12345678")).Address()), 1, 8); err == nil {
		t.Error("PingPong took another answer for its own")
	}
}
