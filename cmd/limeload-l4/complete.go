package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/convert"
)

// askedWithin bounds a call of the daemon for a completion: the user is waiting with a finger on the key.
const askedWithin = 300 * time.Millisecond

// completeName is the name of the command that the scripts of the shells call.
const completeName = "__complete"

// filesWanted is the line that makes a script complete file names instead.
const filesWanted = ":files"

// completeCommand prints the completions of its last argument, which is the word under the cursor, after the others.
// Each line has a word and, after a tab, its meaning. Knowing none is not an error.
func completeCommand() *cli.Command {
	return &cli.Command{
		Name:            completeName,
		Usage:           "print what a word may become, for the scripts of `limeload-l4 completion`",
		ArgsUsage:       "WORD...",
		Hidden:          true,
		HideHelp:        true,
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			words := c.Args().Slice()
			if len(words) > 0 && words[0] == "--" {
				words = words[1:]
			}
			if len(words) == 0 {
				words = []string{""}
			}
			last := len(words) - 1
			return newCompletion(c.App, words[:last]).print(c.Context, c.App.Writer, words[last])
		},
	}
}

// A candidate is a possible word at the cursor, and its meaning, which may be "".
type candidate struct{ word, meaning string }

// A completion is the result of parsing the words before the cursor.
type completion struct {
	app      *cli.App
	commands []*cli.Command    // subcommands that may follow; none after an argument
	flags    []cli.Flag        // of the command
	usage    []string          // of the command's arguments
	args     []string          // given so far
	values   map[string]string // of the flags given so far
	path     []string          // the command's names
	open     cli.Flag          // the flag whose value is under the cursor; nil for none
	literal  bool              // after "--"; no word is a flag
}

// newCompletion parses the words after the program's name, as the library does when it runs them.
func newCompletion(app *cli.App, words []string) *completion {
	k := &completion{app: app, commands: app.Commands, flags: app.Flags, values: map[string]string{}}
	for _, word := range words {
		switch {
		case k.open != nil:
			k.values[k.open.Names()[0]] = word
			k.open = nil
		case !k.literal && word == "--":
			k.literal = true
		case !k.literal && len(word) > 1 && word[0] == '-':
			name, value, attached := strings.Cut(strings.TrimLeft(word, "-"), "=")
			f := flagNamed(k.flags, name)
			switch {
			case f != nil && attached:
				k.values[f.Names()[0]] = value
			case f != nil && takesValue(f):
				k.open = f
			}
		default:
			k.argument(word)
		}
	}
	return k
}

// argument handles a word that is no flag: the name of a command, or an argument.
func (k *completion) argument(word string) {
	for _, c := range k.commands {
		if c.HasName(word) {
			k.commands, k.flags, k.usage = c.Subcommands, c.Flags, strings.Fields(c.ArgsUsage)
			k.path = append(k.path, c.Name)
			return
		}
	}
	k.commands = nil
	k.args = append(k.args, word)
}

// print writes the candidates that begin with word.
func (k *completion) print(ctx context.Context, w io.Writer, word string) error {
	prefix, candidates := "", []candidate(nil)
	name, value, attached := strings.Cut(word, "=")
	switch {
	case k.open != nil:
		candidates = k.valuesOf(ctx, k.open)
	case !k.literal && attached && strings.HasPrefix(word, "-"):
		f := flagNamed(k.flags, strings.TrimLeft(name, "-"))
		if f == nil {
			return nil
		}
		prefix, word = name+"=", value
		candidates = k.valuesOf(ctx, f)
	case !k.literal && strings.HasPrefix(word, "-"):
		candidates = k.flagNames()
	default:
		candidates = append(k.commandNames(), k.argumentValues(ctx)...)
	}
	for _, c := range candidates {
		if c.word == filesWanted {
			_, err := fmt.Fprintln(w, filesWanted)
			return err
		}
		// leave out words that a shell or terminal could misinterpret
		special := strings.ContainsAny(c.word, " \\'\"`$&|;<>()*?[]{}!#~^")
		if !strings.HasPrefix(c.word, word) || c.word != clean(c.word) || special {
			continue
		}
		line := prefix + c.word
		if c.meaning != "" {
			line += "\t" + clean(c.meaning)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func (k *completion) commandNames() (names []candidate) {
	for _, c := range k.commands {
		if !c.Hidden {
			names = append(names, candidate{c.Name, c.Usage})
		}
	}
	return names
}

// flagNames returns the flags that may follow. Only a list may be given again.
func (k *completion) flagNames() (names []candidate) {
	for _, f := range k.flags {
		if _, given := k.values[f.Names()[0]]; given && !isList(f) || f.Names()[0] == "help" {
			continue
		}
		names = append(names, candidate{"--" + f.Names()[0], flagUsage(f)})
	}
	return append(names, candidate{"--help", "show help"})
}

func isList(f cli.Flag) bool {
	_, is := f.(*cli.StringSliceFlag)
	return is
}

// flagUsage returns the usage of a flag without the backquotes around the name of its value.
func flagUsage(f cli.Flag) string {
	if d, is := f.(cli.DocGenerationFlag); is {
		return strings.ReplaceAll(d.GetUsage(), "`", "")
	}
	return ""
}

// placeholder returns the name of a flag's value, which its usage has between backquotes; "" if it has none.
func placeholder(f cli.Flag) string {
	d, is := f.(cli.DocGenerationFlag)
	if !is {
		return ""
	}
	if parts := strings.SplitN(d.GetUsage(), "`", 3); len(parts) == 3 {
		return parts[1]
	}
	return ""
}

// valuesOf returns the possible values of a flag.
func (k *completion) valuesOf(ctx context.Context, f cli.Flag) []candidate {
	if s, is := f.(*cli.StringFlag); is && s.TakesFile {
		return files()
	}
	switch name := f.Names()[0]; name {
	case "pool", "listener", "backend":
		return k.names(ctx, strings.ToUpper(name))
	}
	return k.names(ctx, placeholder(f))
}

// argumentValues returns the possible values of the next argument.
func (k *completion) argumentValues(ctx context.Context) []candidate {
	if len(k.usage) == 0 {
		return nil
	}
	last := k.usage[len(k.usage)-1]
	switch {
	case len(k.args) < len(k.usage)-1 || len(k.args) < len(k.usage) && !repeats(last):
		return k.names(ctx, strings.Trim(k.usage[len(k.args)], "[]"))
	case repeats(last):
		return k.names(ctx, bareName(last))
	}
	return nil
}

// names returns the candidates for a placeholder of the usage.
func (k *completion) names(ctx context.Context, what string) []candidate {
	switch what {
	case "FILE":
		return files()
	case "FORMAT":
		formats := []string{"table", "json"}
		if slices.Equal(k.path, []string{"simulate"}) {
			formats = append(formats, "csv")
		}
		return bare(formats)
	case "LEVEL":
		return bare(admin.LogLevels())
	case "MODE":
		return bare(modes())
	case "KIND":
		return bare(admin.EventKinds())
	case "COMMAND":
		if path, err := commandPath(k.app, k.args); err == nil {
			below := completion{commands: k.app.Commands}
			if len(path) > 0 {
				below.commands = path[len(path)-1].Subcommands
			}
			return below.commandNames()
		}
		return nil
	case "PROGRAM":
		return bare([]string{string(convert.HAProxy), string(convert.Nginx)})
	case "SERVICE":
		return exampleList()
	case "SHELL":
		return bare(shells())
	case "SECTION":
		return []candidate{{"8", "limeload-l4(8), the program"}, {"5", "lb.toml(5), its configuration"}}
	case "ALGORITHM":
		all := []candidate{{"all", "compare them"}}
		for _, kind := range algo.Kinds() {
			all = append(all, candidate{kind.Name, kind.Use})
		}
		return all
	case "WHEN":
		return bare(colours())
	case "ORDER":
		return bare(admin.ClientOrders())
	case "PREFIX":
		if !slices.Equal(k.path, []string{"access", "remove"}) {
			return nil // only the user knows whom to allow or deny
		}
		return k.running(ctx, what)
	case "POOL", "LISTENER", "BACKEND", "ID":
		return k.running(ctx, what)
	}
	return nil
}

// running returns names from the daemon; none if it does not answer in time.
func (k *completion) running(ctx context.Context, what string) (names []candidate) {
	ctx, cancel := context.WithTimeout(ctx, askedWithin)
	defer cancel()
	client, err := k.client()
	if err != nil {
		return nil
	}
	defer client.Close()
	pool := k.values["pool"]
	if len(k.args) > 0 {
		pool = k.args[0]
	}
	switch what {
	case "POOL":
		pools, _ := client.Pools(ctx) // none on an error
		for _, p := range pools {
			backends := counted(p.Backends, "backend")
			names = append(names, candidate{
				p.Name, fmt.Sprintf("%s, %d of %s eligible", p.Algorithm, p.Eligible, backends),
			})
		}
	case "LISTENER":
		listeners, _ := client.Listeners(ctx)
		for _, l := range listeners {
			if slices.Equal(k.path, []string{"dns", "purge"}) && (l.DNS == nil || l.DNS.Cache == nil) {
				continue
			}
			names = append(names, candidate{l.Name, l.Protocol + " " + addressList(l.Addresses)})
		}
	case "BACKEND":
		backends, _ := client.Backends(ctx, pool)
		for _, b := range backends {
			names = append(names, candidate{b.Name, strings.Join([]string{b.Address, b.Mode, b.Verdict}, " ")})
		}
	case "PREFIX":
		rules, _ := client.AccessRules(ctx)
		for _, r := range rules {
			if r.Listener == k.values["listener"] && !slices.Contains(k.args, r.Prefix) {
				names = append(names, candidate{r.Prefix, strings.TrimSpace(r.Action + " " + r.Comment)})
			}
		}
	case "ID":
		list, _ := client.Sessions(ctx, admin.SessionFilter{Limit: 100})
		for _, s := range list.Sessions {
			names = append(names, candidate{s.ID, fmt.Sprintf("%s at %s to %s", s.Client, s.Listener, s.Backend)})
		}
	}
	return names
}

// client returns a client of the daemon that the words before the cursor name.
func (k *completion) client() (*admin.Client, error) {
	at := place{address: k.values["admin"], tokenFile: k.values["token-file"]}
	config, given := k.values["config"]
	if !given {
		config = configFlag().(*cli.StringFlag).Value
	}
	at, err := at.orOf(config, false)
	if err != nil {
		return nil, err
	}
	return at.client()
}

func files() []candidate { return []candidate{{filesWanted, ""}} }

func bare(words []string) (candidates []candidate) {
	for _, w := range words {
		candidates = append(candidates, candidate{w, ""})
	}
	return candidates
}
