//go:build netns && soak

package test

import "testing"

// TestSoakNetnsFleetECMP measures the figures of docs/fleet.md:
//
//	unshare --user --map-root-user --net go test -tags netns,soak -run SoakNetnsFleetECMP -v ./test
func TestSoakNetnsFleetECMP(t *testing.T) { experiment(t, 4000) }
