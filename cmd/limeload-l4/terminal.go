package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminalWidth returns the number of columns of the terminal that w writes to, and 0 if w is not a terminal.
func terminalWidth(w io.Writer) int {
	file, is := w.(*os.File)
	if !is {
		return 0
	}
	columns, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return columns
}
