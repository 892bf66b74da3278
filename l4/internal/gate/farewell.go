package gate

// maxFarewells is how many clients of the process may be told at once why they are refused. Each costs a descriptor for
// some seconds at most. More clients are refused without a word.
const maxFarewells = 1024

// farewellPart is the part of the sessions that there are descriptors for, one in so many, that farewells may take the
// place of: clients that are refused must not keep out those that can be served.
const farewellPart = 8

// AdmitFarewell asks for a place for a client that is refused, and that is to be told why. If it reports true, the
// client counts as a farewell until LeaveFarewell, whether or not it counted as a session before.
func (ls *Listener) AdmitFarewell() bool {
	g := ls.gate
	if g.farewells.Add(1) > min(maxFarewells, max(1, g.capacity.Load()/farewellPart)) {
		g.farewells.Add(-1)
		return false
	}
	return true
}

// LeaveFarewell counts a farewell out.
func (ls *Listener) LeaveFarewell() {
	ls.gate.farewells.Add(-1)
	ls.gate.left()
}

// maxMute is how many clients of the process may be refused without a word, and keep a descriptor for that, at once.
const maxMute = 1024

// AdmitMute asks for a place for a client that is refused without a word, and keeps its connection. If it reports true,
// the client counts until LeaveMute.
func (ls *Listener) AdmitMute() bool {
	g := ls.gate
	if g.mute.Add(1) > min(maxMute, g.capacity.Load()/farewellPart) {
		g.mute.Add(-1)
		return false
	}
	return true
}

// LeaveMute counts a client out that was refused without a word.
func (ls *Listener) LeaveMute() { ls.gate.mute.Add(-1) }
