package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/convert"
	"github.com/limeload/limeload-l4/conf"
)

// standardInput is what a command calls a file that it reads from standard input.
const standardInput = "standard input"

// errNotAllCarried is the error of a conversion that has left something out, which its list of notes says.
var errNotAllCarried = errors.New("not everything could be carried over")

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "make an lb.toml of a configuration of HAProxy or nginx, and list what it could not carry over",
		ArgsUsage: "FILE",
		Description: `FILE is an haproxy.cfg, an nginx.conf with a block stream, or - for standard input. The lb.toml goes to
standard output. Standard error gets a list, each with its line, what it is about and a remedy: what is left
out, and what is done in another way. The exit code is 0 if nothing is left out, and otherwise 1.

   limeload-l4 convert /etc/haproxy/haproxy.cfg >lb.toml`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "`PROGRAM`: haproxy or nginx", DefaultText: "what the words of the file say"},
			&cli.StringFlag{Name: "to", TakesFile: true, Usage: "write the lb.toml to this `FILE`, which must not exist",
				DefaultText: "standard output"},
		},
		HideHelpCommand: true,
		OnUsageError:    asUsageError,
		Action: func(c *cli.Context) error {
			args, asked, err := arguments(c)
			if asked || err != nil {
				return err
			}
			r, err := converted(args[0], c.String("from"), c.IsSet("from"))
			if err != nil {
				return err
			}
			if err := listNotes(c.App.ErrWriter, r); err != nil {
				return err
			}
			if r.Listeners > 0 {
				if err := writeConverted(c, r.TOML); err != nil {
					return err
				}
			}
			return judge(r)
		},
	}
}

// converted reads and converts a file.
func converted(file, from string, given bool) (*convert.Result, error) {
	name, text, err := readArgument(file)
	if err != nil {
		return nil, &usageError{err}
	}
	kind := convert.Kind(from)
	if !given {
		kind = convert.Detect(text)
	}
	switch {
	case given && kind != convert.HAProxy && kind != convert.Nginx:
		return nil, &usageError{fmt.Errorf("--from %q: needs haproxy or nginx", from)}
	case kind == "":
		return nil, &usageError{fmt.Errorf("%s has no words of HAProxy or nginx; name the program with --from", name)}
	}
	r, err := convert.Convert(text, convert.Options{Kind: kind, File: name,
		Read: func(pattern string) (map[string][]byte, error) { return includedByNginx(file, pattern) }})
	if err != nil {
		return nil, &usageError{err}
	}
	return r, nil
}

// readArgument reads the file of an argument; "-" is standard input. It returns what to call it.
func readArgument(file string) (name string, text []byte, err error) {
	if file != "-" {
		if text, err = conf.ReadFile(file); errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: there is no such file", file)
		}
		return file, text, fileError(err)
	}
	text, err = io.ReadAll(io.LimitReader(os.Stdin, conf.MaxFileBytes+1))
	return standardInput, text, err
}

// includedByNginx reads the files that an include of a configuration names. A relative one counts from the folder of
// the configuration, or from the working folder for standard input.
func includedByNginx(config, pattern string) (map[string][]byte, error) {
	if config != "-" {
		pattern = conf.FilePath(config, pattern)
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, errors.New("this is no pattern of files")
	}
	files, size := map[string][]byte{}, 0
	for _, name := range names {
		if len(files) == 201 || size > convert.MaxBytes { // more than Convert reads, which says so
			break
		}
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is no regular file", name) // a pipe would block, a device never end
		}
		text, err := conf.ReadFile(name)
		if err != nil {
			return nil, fileError(err)
		}
		files[name] = text
		size += len(text)
	}
	return files, nil
}

// listNotes lists what is left out, and what is done in another way.
func listNotes(w io.Writer, r *convert.Result) error {
	var b strings.Builder
	for _, left := range []bool{true, false} {
		n := 0
		for i := range r.Notes {
			if r.Notes[i].Left != left {
				continue
			}
			if n++; n == 1 && left {
				b.WriteString("left out:\n")
			} else if n == 1 {
				b.WriteString("done in another way:\n")
			}
			fmt.Fprintf(&b, "  %s\n", clean(r.Notes[i].String()))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeConverted writes the result to standard output, or to a new file.
func writeConverted(c *cli.Context, text []byte) error {
	file := c.String("to")
	if file == "" {
		_, err := c.App.Writer.Write(text)
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; remove it, or name another file with --to", file)
	}
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// judge returns an error if something is left out, or if the result is no configuration. It looks up no names and reads
// no files, since they may be on another machine.
func judge(r *convert.Result) error {
	if r.Listeners == 0 {
		return fmt.Errorf("%w: nothing is left that clients could connect to", errNotAllCarried)
	}
	_, err := conf.Parse("the result", r.TOML)
	var wrong conf.Errors
	if errors.As(err, &wrong) && !wrong.OnlyEnvironment() {
		return fmt.Errorf("%w\nthe result has mistakes: correct them, and try `limeload-l4 check`", err)
	}
	if left := r.Left(); left > 0 {
		return fmt.Errorf("%w: %s left out, see above", errNotAllCarried, counted(left, "thing"))
	}
	return nil
}
