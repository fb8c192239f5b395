package broker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/events"
	"sixfour/internal/leases"
	"sixfour/internal/ndproxy"
	"sixfour/internal/store"
	"sixfour/internal/store/etcd"
	"sixfour/transport"
	"sixfour/transport/access"
)

// Broker is the broker of a configuration.
type Broker struct {
	log       *zap.Logger
	clients   *access.Clients
	authority *Authority
	routes    *Routes
	listeners *listeners
	proxy     *ndproxy.Proxy // nil: there is none
	store     store.Store    // nil: it could not be opened
	base      atomic.Pointer[leases.Base]

	mu     sync.Mutex
	cfg    config.Broker
	failed string // why there are no accounts and leases
}

// Open prepares the broker of a configuration, before the process drops its privileges: it
// opens the store, if that is a file. Run must follow. A store that cannot be opened is
// no error, because the other tunnels must work: it is logged, and in the status, and all
// clients are refused.
func Open(cfg *config.Config, log *zap.Logger) (*Broker, error) {
	b := &Broker{log: log, clients: access.NewClients(), cfg: cfg.Broker}
	var err error
	if b.routes, err = NewRoutes(cfg.Broker.Interface, log); err != nil {
		return nil, err
	}
	b.authority = New(Config{Interface: cfg.Broker.Interface, Clients: b.clients, Router: b.routes, Log: log})
	b.listeners = newListeners(b.authority, b.prefixOf, transport.Options{Mark: mark(cfg)}, log)
	if cfg.Broker.NDPProxy != "" {
		attached := func(a netip.Addr) bool { return b.clients.Table.To(a) != nil }
		if b.proxy, err = ndproxy.Open(cfg.Broker.NDPProxy, attached, log); err != nil {
			return nil, err
		}
	}
	if b.store, err = OpenStore(&cfg.Broker.Store); err != nil {
		b.fail(err)
	}
	b.apply()
	return b, nil
}

// OpenStore opens the store of a configuration. It does not wait for etcd. The store is nil if
// there is an error.
func OpenStore(s *config.BrokerStore) (store.Store, error) {
	if s.File == "" {
		cluster, err := etcd.Open(etcd.Config{Endpoints: s.URLs, CA: s.CA, Cert: s.Cert, Key: s.Key, Prefix: s.Prefix})
		if err != nil {
			return nil, err
		}
		return cluster, nil
	}
	file, err := store.OpenBolt(s.File)
	if err != nil {
		return nil, err
	}
	return file, nil
}

// mark returns the firewall mark of packets to clients: they must not go into a tunnel that has
// the default route.
func mark(cfg *config.Config) uint32 {
	if cfg.Gateway.DefaultRoute != "" {
		return config.GatewayMark
	}
	return 0
}

// fail notes why there are no accounts and leases.
func (b *Broker) fail(err error) {
	b.mu.Lock()
	b.failed = err.Error()
	b.mu.Unlock()
	b.log.Error("the broker refuses all clients, because it has no accounts and leases", zap.Error(err))
}

// Report sets where events go, before Run.
func (b *Broker) Report(to *events.Log) { b.authority.config.Events = to }

// Run serves clients until ctx ends.
func (b *Broker) Run(ctx context.Context) {
	var running sync.WaitGroup
	routing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	running.Go(func() { b.routes.Run(routing) })
	running.Go(func() { b.openBase(ctx) })
	if b.proxy != nil {
		running.Go(func() {
			b.proxy.Run(routing)
			b.proxy.Close()
		})
	}
	b.listeners.run(ctx, nil)
	b.authority.Close()
	stop()
	running.Wait()
	if base := b.base.Load(); base != nil {
		if err := base.Close(); err != nil {
			b.log.Warn("broker: some of what is known of clients was not stored", zap.Error(err))
		}
	}
	if b.store != nil {
		if err := b.store.Close(); err != nil {
			b.log.Warn("broker: cannot close the store", zap.Error(err))
		}
	}
}

// openBase reads the store, and serves clients from then on.
func (b *Broker) openBase(ctx context.Context) {
	if b.store == nil {
		return
	}
	slow := time.AfterFunc(5*time.Second, func() {
		b.log.Warn("the broker refuses all clients until its store answers", zap.Strings("store", storeNames(&b.cfg)))
	})
	defer slow.Stop()
	cfg := b.config()
	base, err := leases.Open(ctx, leases.Config{
		Store: b.store, Server: serverName(&cfg),
		Pool: cfg.Pool, PrefixLength: cfg.PrefixLength, MaxPrefixLength: cfg.MaxPrefixLength, Endpoints: cfg.Endpoints,
		MTU: int(cfg.MTU), Open: cfg.Open, Notify: b.authority.Notify,
	})
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			b.fail(err)
		}
		return
	}
	b.base.Store(base)
	b.apply() // the configuration may have changed since
	b.authority.Use(base)
	accounts, leased, free := base.Sizes()
	b.log.Info("the broker serves clients", zap.Int("accounts", accounts), zap.Int("leases", leased), zap.Uint64("free", free))
}

// serverName returns the name of this server among those with the same store.
func serverName(cfg *config.Broker) string {
	if cfg.Name != "" {
		return cfg.Name
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "sixfour"
}

func storeNames(cfg *config.Broker) []string {
	if cfg.Store.File != "" {
		return []string{cfg.Store.File}
	}
	return cfg.Store.URLs
}

func (b *Broker) config() config.Broker {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cfg
}

// Base returns the accounts and leases; nil: they are not known, and the error says why.
func (b *Broker) Base() (*leases.Base, error) {
	if base := b.base.Load(); base != nil {
		return base, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != "" {
		return nil, errors.New(b.failed)
	}
	return nil, fmt.Errorf("the store %s has not answered yet: try again", strings.Join(storeNames(&b.cfg), ", "))
}

// prefixOf returns the prefix of an account; the zero Prefix: it has none.
func (b *Broker) prefixOf(account string) netip.Prefix {
	if base := b.base.Load(); base != nil {
		if l, ok := base.Lease(account); ok {
			return l.Prefix
		}
	}
	return netip.Prefix{}
}

// Install makes the tunnel for clients in a configuration that of this broker. Broker may be
// nil, or have other settings that need a restart: then the configuration gets the tunnel that
// the broker has now, if it has one.
func (b *Broker) Install(cfg *config.Config) {
	if cfg.Broker.Interface != "" {
		cfg.Tunnels = slices.DeleteFunc(slices.Clone(cfg.Tunnels), func(t config.Tunnel) bool { return t.Mode.Name == config.BrokerMode })
	}
	if b == nil {
		return
	}
	of := cfg.Broker
	if now := b.config(); b.NeedsRestart(&of) {
		of = now
	}
	t := mechanism.BrokerTunnel(&of, b.clients.Table, b.clients)
	cfg.Tunnels = append(cfg.Tunnels, t)
}

// NeedsRestart reports whether a configuration differs from the present one in what cannot
// change while the broker runs. B may be nil: there is no broker.
func (b *Broker) NeedsRestart(of *config.Broker) bool {
	if b == nil {
		return of.Interface != ""
	}
	now := b.config()
	return !now.SameBase(of)
}

// Reload applies a configuration for which NeedsRestart is false.
func (b *Broker) Reload(of *config.Broker) {
	b.mu.Lock()
	b.cfg = *of
	b.mu.Unlock()
	b.apply()
}

// apply applies the present configuration.
func (b *Broker) apply() {
	cfg := b.config()
	b.authority.Set(Settings{MTU: int(cfg.MTU), Networks: cfg.Networks()})
	b.routes.Leave(cfg.Networks())
	b.listeners.set(cfg.Listen, cfg.Open)
	if base := b.base.Load(); base != nil {
		base.Offer(cfg.Pool, cfg.PrefixLength, cfg.MaxPrefixLength, cfg.Open)
	}
}
