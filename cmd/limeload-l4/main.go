// Command limeload-l4 balances TCP connections, UDP flows and DNS questions over backends.
//
// Without a command it is the balancer itself, see package daemon; its commands check a configuration, simulate one, or
// call a running balancer through package admin. This package owns the process: arguments, signals, exit codes and log
// output.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1 // the command failed, or the configuration is invalid
	exitUsage       = 2 // the command line is invalid
	exitUnreachable = 3 // no daemon answers at the admin address
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr))
}

// run is the whole program, and returns its exit code. It ends early if ctx does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	err := execute(ctx, app, args)
	code := exitCode(err)
	switch code {
	case exitDone:
	case exitUsage:
		fmt.Fprintf(stderr, "limeload-l4: %s\nSee `%s`.\n", cleanLines(err.Error()), helpAbout(app, args[1:]))
	case exitFailed:
		if !errors.Is(err, errPrinted) {
			printError(stderr, err)
		}
	default:
		printError(stderr, err)
	}
	return code
}

// A usageError is an error of the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:            "limeload-l4",
		Usage:           "a layer-4 balancer for TCP and UDP",
		UsageText:       "limeload-l4 --config lb.toml\nlimeload-l4 COMMAND [FLAGS]",
		HideHelpCommand: true,
		Writer:          stdout,
		ErrWriter:       stderr,
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "version", Aliases: []string{"v"}, Usage: "print the version",
				DisableDefaultText: true},
		},
		Action: noArguments(func(c *cli.Context) error {
			if c.Bool("version") {
				return printVersion(c)
			}
			file, err := configFile(c)
			if err != nil {
				return err
			}
			return serve(c.Context, file, stderr)
		}),
		Commands: []*cli.Command{
			algorithmsCommand(), demoCommand(), schemaCommand(), simulateCommand(), versionCommand(),
		},
		ExitErrHandler: func(*cli.Context, error) {}, // run handles errors
	}
	app.OnUsageError = asUsageError
	for _, c := range app.Commands {
		c.OnUsageError = asUsageError
		c.Action = noArguments(c.Action)
		c.HideHelpCommand = true
	}
	app.Commands = append(app.Commands, commandsWithArguments()...)
	slices.SortStableFunc(app.Commands, func(a, b *cli.Command) int { return cmp.Compare(placeOf(a), placeOf(b)) })
	return app
}

// placeOf returns the place of a command in lists: first what a new user needs, in that order, and then the others.
func placeOf(c *cli.Command) int {
	first := []string{"example", "check", "demo", "convert", "simulate", "schema", "algorithms"}
	if i := slices.Index(first, c.Name); i >= 0 {
		return i
	}
	return len(first)
}

func configFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "config", Aliases: []string{"c"}, Value: "/etc/limeload/lb.toml", TakesFile: true,
		Usage: "the configuration `FILE`",
	}
}

// configFile returns the file that --config names, before or after the command.
func configFile(c *cli.Context) (string, error) {
	file := c.String("config")
	for _, at := range c.Lineage() {
		if at.IsSet("config") {
			file = at.String("config")
			break
		}
	}
	if file == "" {
		return "", &usageError{errors.New("--config needs the path of a file")}
	}
	return file, nil
}

// noArguments refuses arguments: the command has none, and a mistyped command would otherwise start the daemon.
func noArguments(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Args().Present() {
			commands := []*cli.Command(nil) // of a command, what follows can only be an argument
			if c.Command == nil || c.Command.Name == c.App.Name {
				commands = c.App.Commands
			}
			return unknownCommand(c.Args().First(), commands)
		}
		return action(c)
	}
}
