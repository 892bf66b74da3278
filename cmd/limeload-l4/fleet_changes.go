package main

import (
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

func fleetChangesCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "changes",
		Usage: "list the run-time changes that the nodes of the fleet share, the latest first",
		Description: `Each line is the last change of one setting of a backend, or of one access rule: when, on which node and
by whom. "here" says whether it is in force on the node that answers. Changes that were undone stay in the
list for a week.`,
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		changes, err := r.client.FleetChanges(ctx)
		if err != nil {
			return err
		}
		answer := struct {
			Changes []admin.FleetChange `json:"changes"`
		}{notNil(changes)}
		return r.print(answer, func(w io.Writer) error { return changeTable(changes).print(w, r.screen) })
	})
}

func changeTable(changes []admin.FleetChange) *table {
	t := newTable(column{name: "when", right: true}, column{name: "node"}, column{name: "by", rank: 2},
		column{name: "of", text: true}, column{name: "what"}, column{name: "value", text: true},
		column{name: "here", usual: "in force", text: true, tint: hereTint})
	for _, c := range changes {
		here := "in force"
		switch {
		case c.Why != "":
			here = "no: " + c.Why
		case c.Pending:
			here = "here only, so far"
		}
		t.add(ago(c.At)+" ago", c.Node, c.By, changedThing(c), c.What, changedValue(c), here)
	}
	return t
}

// changedThing names what a change is about.
func changedThing(c admin.FleetChange) string {
	if c.Prefix == "" {
		return c.Pool + "/" + c.Backend
	}
	return c.Prefix + " at " + listenerText(c.Listener)
}

// changedValue describes what a setting was changed to.
func changedValue(c admin.FleetChange) string {
	switch {
	case c.Undone:
		return "undone"
	case c.Until == nil:
		return c.Value
	case c.Prefix != "":
		return c.Value + " for " + expiry(c.Until)
	case c.Until.After(time.Now()):
		return c.Value + ", sessions are ended in " + expiry(c.Until)
	}
	return c.Value + ", sessions were ended"
}

// hereTint colours what is not in force on this node.
func hereTint(cell string) tint {
	if cell == "in force" {
		return uncoloured
	}
	return doubtful
}
