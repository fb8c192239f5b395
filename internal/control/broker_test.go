package control_test

import (
	"context"
	"fmt"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/control"
	"sixfour/internal/control/client"
)

// keeper is a daemon with a broker that has three accounts.
type keeper struct{ fake }

func (keeper) Broker(_ context.Context, q api.BrokerRequest, emit func(any) error) error {
	if q.Do != api.AccountList {
		return fmt.Errorf("there is no account %q", q.Account)
	}
	for i := range 3 {
		if err := emit(api.BrokerAccount{Account: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	return nil
}

// A request reaches the broker, and each value of its answer the client; a daemon without a
// broker says that it has none.
func TestBroker(t *testing.T) {
	for _, c := range []struct {
		daemon control.Daemon
		q      api.BrokerRequest
		lines  int
		err    string
	}{
		{keeper{}, api.BrokerRequest{Do: api.AccountList}, 3, ""},
		{keeper{}, api.BrokerRequest{Do: api.AccountShow, Account: "x\n\""}, 0, `there is no account "x\n\""`},
		{fake{}, api.BrokerRequest{Do: api.AccountList}, 0, control.ErrNoBroker.Error()},
	} {
		lines := 0
		err := client.New(listen(t, c.daemon)).Broker(t.Context(), c.q, func([]byte) error { lines++; return nil })
		if lines != c.lines || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%+v: %d lines, %v", c.q, lines, err)
		}
	}
}
