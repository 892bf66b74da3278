package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

// adminVariable is the environment variable that replaces --admin.
const adminVariable = "LIMELOAD_ADMIN"

// daemonFlags is the category of the flags of every command that calls the daemon.
const daemonFlags = "For every command that asks the daemon:"

// exitCode returns the exit code of the program for err.
func exitCode(err error) int {
	var usage *usageError
	var coder cli.ExitCoder // an error of the library, about an unknown help topic
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &coder):
		return exitUsage
	case errors.Is(err, admin.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailed
}

// A remote is the running daemon for a command, which makes one and uses it from one goroutine. Its zero value is of no
// use.
type remote struct {
	client  *admin.Client
	timeout time.Duration // of each request
	out     io.Writer
	json    bool
	screen  screen // what out is
}

// controlCommand makes a command that calls the daemon. Its own flags come before the common ones.
func controlCommand(
	c cli.Command, timeout time.Duration, do func(c *cli.Context, r *remote, args []string) error,
) *cli.Command {
	config := *configFlag().(*cli.StringFlag)
	if flagNamed(c.Flags, "config") == nil {
		config.Usage = "the configuration `FILE`, which says where the daemon is"
		config.Category = daemonFlags
		c.Flags = append(c.Flags, &config)
	}
	c.Flags = append(c.Flags,
		&cli.StringFlag{Name: "admin", Category: daemonFlags,
			Usage: "the daemon's admin `ADDRESS`, \"unix:PATH\" or \"IP:PORT\"; else " +
				adminVariable + " of the environment, else what the configuration file says"},
		&cli.StringFlag{Name: "token-file", Category: daemonFlags, TakesFile: true,
			Usage: "a `FILE` with the token that the daemon asks for; else what the configuration file says"},
		&cli.StringFlag{Name: "output", Category: daemonFlags, Value: "table",
			Usage: "`FORMAT`: table, or json as the API has it"},
		&cli.BoolFlag{Name: "wide", Category: daemonFlags, DisableDefaultText: true,
			Usage: "all columns of tables, and lines of any length, also on a terminal"},
		&cli.StringFlag{Name: "color", Category: daemonFlags, Value: "auto",
			Usage: "`WHEN` states have colours: auto (on a terminal, unless NO_COLOR is set), always or never"},
		&cli.DurationFlag{Name: "timeout", Category: daemonFlags, Value: timeout,
			Usage:       "how long an answer may take, a `TIME`",
			DefaultText: fmt.Sprintf("%s; %s for reload, plan and upgrade", duration(answerIn), duration(reloadIn))},
	)
	c.HideHelpCommand = true
	c.OnUsageError = asUsageError
	c.Action = func(c *cli.Context) error {
		args, asked, err := arguments(c)
		if asked || err != nil {
			return err
		}
		if err := noneEmpty(c); err != nil {
			return err
		}
		r, err := newRemote(c)
		if err != nil {
			return err
		}
		defer r.client.Close()
		return shown(r.naming(c, args, do(c, r, args)))
	}
	return &c
}

// noneEmpty refuses a flag with an empty value, so that an empty variable of a script does not select all pools.
func noneEmpty(c *cli.Context) error {
	for _, at := range c.Lineage() {
		if at.Command == nil {
			continue
		}
		for _, f := range at.Command.Flags {
			name := f.Names()[0]
			if _, is := f.(*cli.StringFlag); is && at.IsSet(name) && at.String(name) == "" {
				return &usageError{fmt.Errorf("--%s is empty", name)}
			}
		}
	}
	return nil
}

// newRemote reads the common flags of the control commands.
func newRemote(c *cli.Context) (*remote, error) {
	r := &remote{
		timeout: from(c, "timeout").Duration("timeout"),
		out:     c.App.Writer,
	}
	var err error
	r.screen, err = screenOf(r.out).with(from(c, "wide").Bool("wide"), from(c, "color").String("color"))
	if err != nil {
		return nil, err
	}
	switch format := from(c, "output").String("output"); format {
	case "table":
	case "json":
		r.json = true
	default:
		return nil, &usageError{fmt.Errorf("--output %q: needs table or json", format)}
	}
	if r.timeout <= 0 {
		return nil, &usageError{fmt.Errorf("--timeout %s: needs a time above 0", r.timeout)}
	}
	file, err := configFile(c)
	if err != nil {
		return nil, err
	}
	at := place{address: from(c, "admin").String("admin"), tokenFile: from(c, "token-file").String("token-file")}
	if at, err = at.orOf(file, from(c, "config").IsSet("config")); err != nil {
		return nil, err
	}
	r.client, err = at.client()
	return r, err
}

// A place is the address of a daemon, and the file with its token. Fields that are not known are "".
type place struct{ address, tokenFile string }

// orOf completes at, first from the environment, then from the configuration file. The file's token is only used for
// the file's address, so that nobody else sees it. A file that was not named explicitly need not be readable, and any
// file may have mistakes: the daemon may run with an earlier version, and can be asked about them.
func (at place) orOf(file string, named bool) (place, error) {
	inFile := place{address: conf.DefaultAdminAddress}
	_, text, err := conf.LoadText(file)
	if text == nil && named {
		return at, err
	}
	var said struct {
		Admin struct {
			Address   *string `toml:"address"`
			TokenFile string  `toml:"token_file"`
		} `toml:"admin"`
	}
	_, _ = toml.Decode(string(text), &said) // keeps what could be parsed
	if said.Admin.Address != nil {
		inFile.address = conf.Expand(*said.Admin.Address)
	}
	if path, unix := strings.CutPrefix(inFile.address, "unix:"); unix {
		inFile.address = "unix:" + conf.FilePath(file, path)
	}
	inFile.tokenFile = conf.FilePath(file, conf.Expand(said.Admin.TokenFile))

	at.address = cmp.Or(at.address, os.Getenv(adminVariable))
	if at.address == "" || at.address == inFile.address {
		at = place{inFile.address, cmp.Or(at.tokenFile, inFile.tokenFile)}
	}
	if at.address == "" {
		return at, fmt.Errorf(
			"%w: %s turns its admin socket off; set admin.address there, or name another with --admin",
			admin.ErrUnreachable, file)
	}
	return at, nil
}

// client makes a client for a place. The caller closes it.
func (at place) client() (*admin.Client, error) {
	token := ""
	if at.tokenFile != "" {
		// it may be a pipe, as the configuration may, since the user has named it
		text, err := conf.ReadFile(at.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token: %w; name another file with --token-file", fileError(err))
		}
		token = string(bytes.TrimSpace(text))
	}
	client, err := admin.NewClient(admin.ClientOptions{Address: at.address, Token: token})
	if err != nil {
		return nil, &usageError{err}
	}
	return client, nil
}

// bounded returns ctx with the timeout of one request.
func (r *remote) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.timeout)
}

// A shownError is an error with a text that is safe for a terminal and says what to do.
type shownError struct {
	err  error
	text string
}

func (e *shownError) Error() string { return e.text }
func (e *shownError) Unwrap() error { return e.err }

// shown converts an error of the client to a shownError. A usage error stays as it is.
func shown(err error) error {
	var usage *usageError
	if err == nil || errors.As(err, &usage) {
		return err
	}
	text := cleanLines(strings.ReplaceAll(err.Error(), ": pool: ", ": ")) // the package, which users do not know
	var problem *admin.Problem
	switch {
	case errors.As(err, &problem) && problem.Status == http.StatusUnauthorized:
		text += "; name the file that holds it with --token-file"
	case errors.Is(err, context.DeadlineExceeded):
		text = "the daemon did not answer in time; give it longer with --timeout"
	case errors.Is(err, context.Canceled):
		text = "stopped before the daemon had answered"
	}
	return &shownError{err, text}
}

// print prints an answer: the JSON of the API, or the output of table.
func (r *remote) print(answer any, table func(w io.Writer) error) error {
	if !r.json {
		return table(r.out)
	}
	text, err := cleanJSON(answer, "  ")
	if err != nil {
		return err
	}
	_, err = r.out.Write(text)
	return err
}

// cleanJSON encodes v as JSON with a line break at its end, safe for a terminal. JSON itself escapes control characters
// of ASCII only. Any other unprintable character can only be in a string, and so may be escaped there.
func cleanJSON(v any, indent string) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return appendPrintable(nil, text.Bytes()), nil
}

// say prints one line for a person.
func (r *remote) say(format string, args ...any) func(io.Writer) error {
	return func(w io.Writer) error {
		return r.screen.write(w, 2, clean(fmt.Sprintf(format, args...)))
	}
}
