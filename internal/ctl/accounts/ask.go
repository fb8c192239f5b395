package accounts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/text"
)

// ask sends a request to the daemon; or, if none answers, to a sixfourd that it starts for this
// request. It calls each with every value of the answer.
func (c *call) ask(ctx context.Context, q api.BrokerRequest, each func([]byte) error) error {
	answered := false
	err := client.New(*c.socket).Broker(ctx, q, func(line []byte) error {
		answered = true
		return each(line)
	})
	if !errors.Is(err, client.ErrNoDaemon) || answered {
		return err
	}
	if offline := c.askStore(ctx, q, each); offline != nil {
		return fmt.Errorf("no sixfourd answers at %s, and without it: %w", *c.socket, offline)
	}
	return nil
}

// maxMessage limits what is printed of an error of sixfourd, in bytes.
const maxMessage = 8 << 10

// askStore has sixfourd carry out a request on the store of a configuration.
func (c *call) askStore(ctx context.Context, q api.BrokerRequest, each func([]byte) error) error {
	program, err := c.Daemon()
	if err != nil {
		return err
	}
	request, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var message bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "-config", *c.config, "-broker")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), &message
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for err == nil && lines.Scan() {
		err = each(lines.Bytes())
	}
	if err = errors.Join(err, lines.Err()); err != nil {
		_ = cmd.Process.Kill()
	}
	if ended := cmd.Wait(); ended != nil && err == nil {
		why := strings.TrimPrefix(strings.TrimSpace(message.String()), "sixfourd: ")
		if why == "" {
			return fmt.Errorf("%s: %w", program, ended)
		}
		return errors.New(text.Cut(why, maxMessage))
	}
	return err
}
