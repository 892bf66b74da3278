package fdconn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair returns both ends of a connection, which the end of the test closes.
func pair(t testing.TB) (mine, theirs *Conn) {
	t.Helper()
	mine, end, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(end.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	end.Close()
	if theirs, err = Take(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mine.Close()
		theirs.Close()
	})
	return mine, theirs
}

// opened returns the number of this process's open descriptors.
func opened(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// pipes returns n descriptors, which the end of the test closes.
func pipes(t testing.TB, n int) []int {
	t.Helper()
	var fds []int
	for len(fds) < n {
		var p [2]int
		if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, p[0], p[1])
	}
	t.Cleanup(func() { closeAll(fds) })
	return fds[:n]
}

func TestMessages(t *testing.T) {
	mine, theirs := pair(t)
	for _, n := range []int{0, 1, 2, MaxFDs} {
		fds := pipes(t, n)
		sent := make(chan error, 1)
		text := strings.Repeat("x", n*10_000) // more than the socket's buffer
		go func() { sent <- mine.Send("kind", map[string]string{"text": text}, fds...) }()
		before := opened(t)
		m, err := theirs.Receive()
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatal(err)
		}
		var body map[string]string
		if err := m.Decode(&body); err != nil || m.Kind != "kind" || body["text"] != text {
			t.Errorf("%d descriptors: the message is %q with %d bytes: %v", n, m.Kind, len(body["text"]), err)
		}
		if len(m.FDs) != n || m.Missing != 0 {
			t.Errorf("%d descriptors and %d missing, want %d", len(m.FDs), m.Missing, n)
		}
		for i, fd := range m.FDs {
			var a, b syscall.Stat_t
			if err := errors.Join(syscall.Fstat(fd, &a), syscall.Fstat(fds[i], &b)); err != nil || a.Ino != b.Ino {
				t.Errorf("descriptor %d of %d is another one: %v", i, n, err)
			}
			flags, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
			if e != 0 || flags&syscall.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d of %d is not close-on-exec: %v", i, n, e)
			}
		}
		m.CloseFDs()
		if after := opened(t); after != before {
			t.Errorf("%d descriptors are open, and %d were before", after, before)
		}
	}
	if err := mine.Send("kind", nil, make([]int, MaxFDs+1)...); err == nil {
		t.Error("a message has more descriptors than the kernel passes on")
	}
	mine.Close()
	if _, err := theirs.Receive(); err != io.EOF {
		t.Errorf("at the end the error is %v", err)
	}
}

// header returns the beginning of a frame.
func header(magic, length, fds uint32) []byte {
	h := binary.BigEndian.AppendUint32(nil, magic)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(h, length), fds)
}

// TestHostile holds that bytes that are no message are an error, at once, and leave no descriptor open.
func TestHostile(t *testing.T) {
	good := `{"kind":"x"}`
	for _, tt := range []struct {
		name  string
		bytes []byte
		fds   int
		want  error
	}{
		{"another program", []byte("GET / HTTP/1.1\r\n\r\n"), 0, ErrMalformed},
		{"another program with descriptors", []byte("GET / HTTP/1.1\r\n\r\n"), 3, ErrMalformed},
		{"half a header", header(magic, 1, 0)[:5], 2, io.ErrUnexpectedEOF},
		{"half a body", append(header(magic, 12, 2), good[:7]...), 2, io.ErrUnexpectedEOF},
		{"no body", header(magic, 12, 0), 0, io.ErrUnexpectedEOF},
		{"a huge body", header(magic, MaxBytes+1, 0), 0, ErrMalformed},
		{"an announced body", header(magic, MaxBytes, 1), 1, io.ErrUnexpectedEOF},
		{"too many descriptors announced", append(header(magic, 12, MaxFDs+1), good...), 0, ErrMalformed},
		{"descriptors not announced", append(header(magic, 12, 1), good...), 2, ErrMalformed},
		{"no JSON", append(header(magic, 3, 1), "abc"...), 1, ErrMalformed},
		{"no object", append(header(magic, 2, 1), "[]"...), 1, ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mine, theirs := pair(t)
			fds := pipes(t, tt.fds)
			before := opened(t)
			if _, _, err := mine.socket.WriteMsgUnix(tt.bytes, syscall.UnixRights(fds...), nil); err != nil {
				t.Fatal(err)
			}
			if err := mine.socket.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			theirs.SetDeadline(time.Now().Add(time.Minute))
			if _, err := theirs.Receive(); !errors.Is(err, tt.want) {
				t.Errorf("the error is %v, want %v", err, tt.want)
			}
			if after := opened(t); after != before {
				t.Errorf("%d descriptors are open, and %d were before", after, before)
			}
		})
	}
}

// TestPieces holds that a message arrives whole, however it is cut, and that descriptors beside its body are closed.
func TestPieces(t *testing.T) {
	mine, theirs := pair(t)
	fds := pipes(t, 2)
	frame := append(header(magic, 12, 1), `{"kind":"x"}`...)
	before := opened(t)
	for i := range frame {
		var rights []byte
		switch i {
		case 3:
			rights = syscall.UnixRights(fds[0])
		case headerBytes + 2:
			rights = syscall.UnixRights(fds[1])
		}
		if _, _, err := mine.socket.WriteMsgUnix(frame[i:i+1], rights, nil); err != nil {
			t.Fatal(err)
		}
	}
	m, err := theirs.Receive()
	if err != nil || m.Kind != "x" || len(m.FDs) != 1 {
		t.Fatalf("the message is %q with %d descriptors: %v", m.Kind, len(m.FDs), err)
	}
	m.CloseFDs()
	if after := opened(t); after != before {
		t.Errorf("%d descriptors are open, and %d were before", after, before)
	}
}

// TestMissing holds that a message says how many of its descriptors there was no room for.
func TestMissing(t *testing.T) {
	mine, theirs := pair(t)
	fds := pipes(t, 1)
	frame := append(header(magic, 12, 3), `{"kind":"x"}`...)
	if _, _, err := mine.socket.WriteMsgUnix(frame, syscall.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	m, err := theirs.Receive()
	defer m.CloseFDs()
	if err != nil || len(m.FDs) != 1 || m.Missing != 2 {
		t.Errorf("%d descriptors and %d missing, want 1 and 2: %v", len(m.FDs), m.Missing, err)
	}
}

// TestTake holds that only a connected Unix stream socket is taken, and that everything else is closed.
func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, open := range map[string]func() (int, error){
		"a file": func() (int, error) { return syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR, 0o600) },
		"a datagram socket": func() (int, error) {
			fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
			t.Cleanup(func() { syscall.Close(fds[1]) })
			return fds[0], err
		},
		"TCP": func() (int, error) {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return 0, err
			}
			defer c.Close()
			f, err := c.(*net.TCPConn).File()
			if err != nil {
				return 0, err
			}
			defer f.Close()
			return syscall.Dup(int(f.Fd()))
		},
	} {
		fd, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Take(fd); err == nil {
			t.Errorf("%s was taken", name)
		}
		var s syscall.Stat_t
		if err := syscall.Fstat(fd, &s); err != syscall.EBADF {
			t.Errorf("%s is open still", name)
		}
	}
	if _, err := Take(1 << 20); err == nil {
		t.Error("a number that stands for nothing was taken")
	}
}

// TestDeadline holds that neither side waits for the other for ever.
func TestDeadline(t *testing.T) {
	mine, theirs := pair(t)
	mine.SetDeadline(time.Now().Add(-time.Second))
	if _, err := mine.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("receiving ends with %v", err)
	}
	if err := mine.Send("x", strings.Repeat("x", 4<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sending ends with %v", err)
	}
	theirs.Close()
}

func FuzzReceive(f *testing.F) {
	f.Add(append(header(magic, 12, 0), `{"kind":"x"}`...))
	f.Add(header(magic, MaxBytes, MaxFDs))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(bytes.Repeat(header(magic, 2, 0), 2))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 64<<10 {
			return
		}
		mine, theirs := pair(t)
		if _, err := mine.socket.Write(frame); err != nil {
			t.Fatal(err)
		}
		mine.Close()
		for {
			if _, err := theirs.Receive(); err != nil {
				return
			}
		}
	})
}
