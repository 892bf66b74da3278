package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// scripts holds the completion scripts of the shells. They call completeCommand for everything, so they always offer
// what the program has. Packages install them unchanged.
//
//go:embed packaging/completions/limeload-l4.bash packaging/completions/_limeload-l4
//go:embed packaging/completions/limeload-l4.fish
var scripts embed.FS

// shells lists the shells there are scripts for.
func shells() []string { return []string{"bash", "zsh", "fish"} }

// scriptOf is where a shell's script stands, under the name that its shell looks for.
func scriptOf(shell string) string {
	name := map[string]string{"bash": "limeload-l4.bash", "zsh": "_limeload-l4", "fish": "limeload-l4.fish"}[shell]
	return "packaging/completions/" + name
}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that has a shell complete commands, flags, and the running daemon's names",
		ArgsUsage: "SHELL",
		Description: `SHELL is bash, zsh or fish. To try it in this shell, or to have it always:

   bash:  source <(limeload-l4 completion bash)
          limeload-l4 completion bash >/etc/bash_completion.d/limeload-l4
   zsh:   source <(limeload-l4 completion zsh)
          limeload-l4 completion zsh >/usr/local/share/zsh/site-functions/_limeload-l4
   fish:  limeload-l4 completion fish | source
          limeload-l4 completion fish >/etc/fish/completions/limeload-l4.fish`,
		HideHelpCommand: true,
		OnUsageError:    asUsageError,
		Action: func(c *cli.Context) error {
			args, asked, err := arguments(c)
			if asked || err != nil {
				return err
			}
			if !slices.Contains(shells(), args[0]) {
				return &usageError{fmt.Errorf("SHELL %q: needs one of %s", args[0], strings.Join(shells(), ", "))}
			}
			script, err := scripts.ReadFile(scriptOf(args[0]))
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(script)
			return err
		},
	}
}
