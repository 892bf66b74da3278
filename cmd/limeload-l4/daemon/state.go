package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/limeload/limeload-l4/conf/file"
)

// maxStateBytes bounds a state file. Ten thousand changed backends need far less; 64 MiB of a fleet's records, which is
// as much as a node keeps, may have twice as much in the file.
const maxStateBytes = 256 << 20

// damagedSuffix is added to the name of a state file that could not be read.
const damagedSuffix = ".damaged"

// A stateStore keeps the run-time changes in a file. The file is complete at every moment: after a crash it holds the
// state before or after a change. Its methods may be called from any goroutine; its zero value is of no use, see
// newStateStore.
type stateStore struct {
	// set once, then read-only
	path    string // "" means that nothing is kept and that save always succeeds
	most    int    // bytes that the file may have
	disk    disk
	collect func() any // returns the whole state, to be encoded as JSON

	turn sync.Cond // waited on while another goroutine writes

	// turn.L guards the fields below
	asked, saved uint64 // saves begun; the last of them that has been written, or has failed
	writing      bool
	held         bool  // another process has the file
	err          error // of the last write
}

// A disk holds the calls that write a file, so that a test can fail before each of them.
type disk struct {
	create func(path string) (diskFile, error)
	rename func(from, to string) error
	sync   func(folder string) error
}

// A diskFile is the part of *os.File that writing needs.
type diskFile interface {
	io.WriteCloser
	Sync() error
}

// realDisk uses the operating system.
func realDisk() disk {
	return disk{
		create: func(path string) (diskFile, error) {
			// Remove the file that a crash may have left. O_EXCL and O_NOFOLLOW make sure that the new file is our own,
			// so that nobody with write access to the folder can redirect the state by a link.
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
		},
		rename: os.Rename,
		sync: func(folder string) error {
			f, err := os.Open(folder)
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Sync()
		},
	}
}

func newStateStore(path string, collect func() any) *stateStore {
	return &stateStore{
		path: path, most: maxStateBytes, disk: realDisk(), collect: collect, turn: sync.Cond{L: new(sync.Mutex)},
	}
}

// save writes the current state and returns once it is on the disk. Concurrent saves share a write.
func (s *stateStore) save() error {
	if s.path == "" {
		return nil
	}
	s.turn.L.Lock()
	defer s.turn.L.Unlock()
	if s.held {
		return nil
	}
	s.asked++
	for mine := s.asked; s.saved < mine; {
		if s.writing {
			s.turn.Wait()
			continue
		}
		s.writing = true
		upTo := s.asked
		s.turn.L.Unlock()
		err := s.write()
		s.turn.L.Lock()
		s.writing, s.saved, s.err = false, upTo, err
		s.turn.Broadcast()
	}
	return s.err
}

// hold waits for the write under way. After it, saves succeed and write nothing until release, since another process
// has the file.
func (s *stateStore) hold() {
	s.turn.L.Lock()
	defer s.turn.L.Unlock()
	s.held = true
	for s.writing {
		s.turn.Wait()
	}
}

// release ends hold. What was not saved meanwhile is saved with the next save.
func (s *stateStore) release() {
	s.turn.L.Lock()
	defer s.turn.L.Unlock()
	s.held = false
}

// outcome reports whether a write has been attempted since the start, and the error of the last one.
func (s *stateStore) outcome() (written bool, err error) {
	s.turn.L.Lock()
	defer s.turn.L.Unlock()
	return s.saved > 0, s.err
}

// write replaces the file: it writes and syncs a new one, renames it over the old one, and syncs the folder, without
// which a power failure may lose the new name (fsync(2)).
func (s *stateStore) write() error {
	data, err := json.MarshalIndent(s.collect(), "", "  ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if len(data) >= s.most { // with the end of the line, the next process could not read it
		return fmt.Errorf("write state %s: there are more than %d bytes", s.path, s.most)
	}
	next := s.path + ".new"
	f, err := s.disk.create(next)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.disk.rename(next, s.path)
	}
	if err == nil {
		err = s.disk.sync(filepath.Dir(s.path))
	}
	if err != nil {
		return fmt.Errorf("write state %s: %w", s.path, err)
	}
	return nil
}

// load reads the file into state. If there is no file, state stays as it was. A file that cannot be parsed is renamed;
// the error says to what.
func (s *stateStore) load(state any) error {
	if s.path == "" {
		return nil
	}
	data, err := file.Read(s.path, s.most)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, file.ErrTooLarge):
		return s.setAside(fmt.Errorf("it has more than %d bytes", s.most))
	case err != nil:
		return fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(data, state); err != nil {
		return s.setAside(err)
	}
	return nil
}

// setAside renames a damaged file, so that somebody can look at it. The error says so, and why.
func (s *stateStore) setAside(why error) error {
	aside := s.path + damagedSuffix
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("state file %s is damaged: %w; and cannot be set aside: %w", s.path, why, err)
	}
	return fmt.Errorf("state file is damaged, and was renamed to %s: %w", aside, why)
}
