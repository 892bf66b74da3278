//go:build race

package harness

// raceEnabled says that the test binary was built with -race.
const raceEnabled = true
