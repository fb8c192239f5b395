package etcd

import "context"

// Compact makes etcd forget what the map was before a revision.
func Compact(ctx context.Context, s *Store, revision int64) error {
	_, err := s.client.Compact(ctx, revision)
	return err
}
