package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print the version",
		Action: printVersion,
	}
}

func printVersion(c *cli.Context) error {
	_, err := fmt.Fprintln(c.App.Writer, "limeload-l4", version())
	return err
}

// stamped is the version that the Makefile gives the linker (-X main.stamped=1.2.3), and no code changes it. It is ""
// in a build by `go build` or `go install`.
var stamped string

// version returns the version that the Makefile gave, or else what the build recorded: the version of the module, or
// the commit of a checkout.
func version() string {
	if stamped != "" {
		return stamped + " " + runtime.Version()
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := strings.TrimPrefix(info.Main.Version, "v")
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	return v + " " + info.GoVersion
}
