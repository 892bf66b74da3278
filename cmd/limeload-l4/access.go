package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

func accessCommand() *cli.Command {
	list := accessListCommand()
	list.Name = "access"
	list.Usage = "list access rules, or allow or deny addresses, without touching the file"
	list.Description = `Without a further command it lists the rules. A rule is in force at once for new clients,
survives reloads and, with global.state_file, a restart. The longest prefix that contains an address decides.
A rule comes before a prefix of the same length in the listener's access list, and a rule for one listener
before one for every listener.`
	list.Subcommands = []*cli.Command{
		accessListCommand(), accessAddCommand(admin.ActionAllow, "let the addresses of prefixes in"),
		accessAddCommand(admin.ActionDeny, "keep the addresses of prefixes out"), accessRemoveCommand(),
		accessCheckCommand(),
	}
	return list
}

// An accessRuleList is the answer about several rules, as the API has it.
type accessRuleList struct {
	Rules []admin.AccessRule `json:"rules"`
}

func accessListCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "list",
		Usage: "list the access rules that were added at run time",
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		rules, err := r.client.AccessRules(ctx)
		if err != nil {
			return err
		}
		answer := accessRuleList{notNil(rules)}
		return r.print(answer, func(w io.Writer) error { return accessTable(rules).print(w, r.screen) })
	})
}

func accessTable(rules []admin.AccessRule) *table {
	t := newTable(column{name: "prefix"}, column{name: "action", tint: stateTint},
		column{name: "listener", usual: "every"}, column{name: "expires in", right: true, rank: 1},
		column{name: "comment", text: true})
	for _, a := range rules {
		listener := a.Listener
		switch {
		case listener == "":
			listener = "every"
		case a.Gone:
			listener += " (gone)"
		}
		t.add(a.Prefix, a.Action, listener, expiry(a.Until), a.Comment)
	}
	return t
}

// expiry returns how long it takes until a rule ends; "" if it does not.
func expiry(until *time.Time) string {
	if until == nil {
		return ""
	}
	return duration(time.Until(*until).Round(time.Second))
}

func accessAddCommand(action, usage string) *cli.Command {
	return controlCommand(cli.Command{
		Name:      action,
		Usage:     usage,
		ArgsUsage: "PREFIX...",
		Description: `PREFIX is an address, or a prefix such as 192.0.2.0/24. The rule replaces the one for the same
prefix and listener. Existing sessions go on; "sessions end --client PREFIX" ends them.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listener", Usage: "at the listener `NAME`; else at every listener"},
			&cli.DurationFlag{Name: "for", Usage: "for this `TIME`", DefaultText: "until it is removed"},
			&cli.StringFlag{Name: "comment", Usage: "why, a `TEXT` for the list and the log"},
			localFlag(),
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		rule := admin.NewAccessRule{Action: action, Listener: c.String("listener"), Comment: c.String("comment"),
			Local: c.Bool("local")}
		if c.IsSet("for") {
			seconds := c.Duration("for").Seconds()
			rule.For = &seconds
			if _, err := rule.Time(); err != nil {
				return &usageError{fmt.Errorf("--for %s: needs %s to %s", c.Duration("for"), admin.MinRuleTime,
					duration(admin.MaxRuleTime))}
			}
		}
		if admin.CheckComment(rule.Comment) != nil {
			return &usageError{fmt.Errorf("--comment: needs %d bytes at most, all printable", admin.MaxCommentLength)}
		}
		if err := knownPrefixes(args); err != nil {
			return err
		}
		answer := accessRuleList{[]admin.AccessRule{}}
		err := eachPrefix(args, func(prefix string) error {
			ctx, cancel := r.bounded(c.Context)
			defer cancel()
			rule.Prefix = prefix
			added, err := r.client.AddAccessRule(ctx, rule)
			if err != nil {
				return err
			}
			answer.Rules = append(answer.Rules, added)
			if r.json {
				return nil
			}
			return r.say("%s%s", ruleText(added), sharingText(added.Sharing))(r.out)
		})
		if err != nil || !r.json {
			return err
		}
		return r.print(answer, nil)
	})
}

// ruleText describes a rule that was added.
func ruleText(a admin.AccessRule) string {
	verb, lasts := "is denied", "until the rule is removed"
	if a.Action == admin.ActionAllow {
		verb = "is allowed"
	}
	if a.Until != nil {
		lasts = "for " + expiry(a.Until)
	}
	return fmt.Sprintf("%s %s at %s, %s", a.Prefix, verb, listenerText(a.Listener), lasts)
}

// listenerText names a listener; "" is every one.
func listenerText(name string) string {
	if name == "" {
		return "every listener"
	}
	return "listener " + name
}

// knownPrefixes refuses arguments that are no prefixes, before the daemon is asked about any.
func knownPrefixes(args []string) error {
	for _, arg := range args {
		var wrong *admin.RequestError
		if _, err := admin.ParsePrefix(arg); errors.As(err, &wrong) {
			text := fmt.Sprintf("PREFIX %q: needs %s", wrong.Value, wrong.Want)
			if wrong.Wrong != "" {
				text = fmt.Sprintf("PREFIX %q: %s; needs %s", wrong.Value, wrong.Wrong, wrong.Want)
			}
			return &usageError{errors.New(text)}
		}
	}
	return nil
}

// eachPrefix calls do for each prefix until one fails. The error of several says how many were done before.
func eachPrefix(prefixes []string, do func(prefix string) error) error {
	for i, prefix := range prefixes {
		if err := do(prefix); err != nil {
			switch {
			case i == 1:
				return fmt.Errorf("%w; 1 of %d prefixes was done before", err, len(prefixes))
			case i > 1:
				return fmt.Errorf("%w; %d of %d prefixes were done before", err, i, len(prefixes))
			}
			return err
		}
	}
	return nil
}

func accessRemoveCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "remove",
		Usage:     "remove the access rules for prefixes",
		ArgsUsage: "PREFIX...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listener", Usage: "those of the listener `NAME`; else those for every listener"},
			localFlag(),
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		if err := knownPrefixes(args); err != nil {
			return err
		}
		answer := struct {
			Removed  []string       `json:"removed"`
			Listener string         `json:"listener"`
			Sharing  *admin.Sharing `json:"sharing,omitempty"` // of the first one that is not shared, or of the last one
		}{Removed: []string{}, Listener: c.String("listener")}
		err := eachPrefix(args, func(prefix string) error {
			ctx, cancel := r.bounded(c.Context)
			defer cancel()
			sharing, err := r.client.RemoveAccessRule(ctx, prefix, answer.Listener, c.Bool("local"))
			if err != nil {
				return err
			}
			if answer.Sharing == nil || answer.Sharing.Shared {
				answer.Sharing = sharing
			}
			answer.Removed = append(answer.Removed, prefix)
			if r.json {
				return nil
			}
			return r.say("%s has no rule any more at %s%s", prefix, listenerText(answer.Listener), sharingText(sharing))(r.out)
		})
		if errors.Is(err, admin.ErrUnknownAccessRule) {
			err = fmt.Errorf("%w; `limeload-l4 access` lists them", err)
		}
		if err != nil || !r.json {
			return err
		}
		return r.print(answer, nil)
	})
}

func accessCheckCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:        "check",
		Usage:       "tell where an address may come in, and which rule or prefix says so; nothing is changed by asking",
		ArgsUsage:   "ADDRESS",
		Description: `It is about access lists and rules only; "explain" says where the client would be sent.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listener", Usage: "at the listener `NAME`; else at each"},
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		found, err := r.client.CheckAccess(ctx, admin.AccessQuery{Address: args[0], Listener: c.String("listener")})
		if err != nil {
			return err
		}
		found.Listeners = notNil(found.Listeners)
		return r.print(found, func(w io.Writer) error { return decisionTable(found.Listeners).print(w, r.screen) })
	})
}

func decisionTable(decisions []admin.AccessDecision) *table {
	t := newTable(column{name: "listener"}, column{name: "access", tint: stateTint},
		column{name: "decided by", rank: 2}, column{name: "prefix"}, column{name: "expires in", right: true, rank: 1},
		column{name: "comment", text: true})
	by := map[string]string{"rule": "a rule", "list": "its access list", "default": "default"}
	for _, d := range decisions {
		access, expires, comment := "denied", "", ""
		if d.Allowed {
			access = "allowed"
		}
		if d.Rule != nil {
			expires, comment = expiry(d.Rule.Until), d.Rule.Comment
		}
		t.add(d.Listener, access, by[d.DecidedBy], d.Prefix, expires, comment)
	}
	return t
}
