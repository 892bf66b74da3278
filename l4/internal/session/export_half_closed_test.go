package session

import "time"

// MayMakeRoom reports whether a session is one of those that may have to make room: one side has closed its half.
func MayMakeRoom(s *Session) bool { return s.place != nil }

// Rest makes the last byte of a session older.
func Rest(s *Session, by time.Duration) { s.active -= by }

// EndHalfClosed looks for half-closed sessions to end among those of the session's listener, as a pause does.
func EndHalfClosed(l *Loop, s *Session) { l.endHalfClosed(s.listener) }
