package history

import (
	"database/sql/driver"
	"time"
)

// Retention. The history has a horizon, a change set: of what was there before, only the
// state at the horizon is known, and from there on everything is. (What was thinned out is
// the exception; and what a snapshot needs stays.) When the file has grown too large, or its
// beginning too old, the horizon moves on.
//
// A state that something else has replaced goes with that. A path that was deleted keeps
// its last content, for that is what somebody may look for, until nothing else is left to
// go. What was renamed is kept where it is now. What is in the tree now never goes.

const (
	// superseded: there is another state of the path up to the horizon (the parameter ?1), with
	// content of its own, or the content has moved.
	superseded = "EXISTS (SELECT 1 FROM change n WHERE n.path=c.path AND n.seq>c.seq AND n.seq<=?1 AND (n.type<>0 OR n.kind=3 OR c.type=0))"
	// unnamed: no snapshot needs it.
	unnamed = "NOT EXISTS (SELECT 1 FROM snapshot s WHERE s.seq>=c.seq AND NOT EXISTS (SELECT 1 FROM change n WHERE n.path=c.path AND n.seq>c.seq AND n.seq<=s.seq))"
	// bare: it says that nothing is there, where nothing else says that something was.
	bare = "c.type=0 AND (c.kind=3 OR c.kind=6) AND NOT EXISTS (SELECT 1 FROM change o WHERE o.path=c.path AND o.seq<c.seq)"
)

// fit makes the file as small as it shall be.
func (f *file) fit() error {
	if f.cfg.Size == 0 {
		return nil
	}
	bytes, err := f.size()
	if err != nil || bytes <= f.cfg.Size {
		return err
	}
	// More than needed, so that it need not be done all the time.
	goal := f.cfg.Size - f.cfg.Size/10
	for range 256 {
		more, err := f.shorten(float64(bytes-goal) / float64(bytes))
		if err != nil {
			return err
		}
		if bytes, err = f.size(); err != nil || bytes <= goal || !more {
			break
		}
	}
	if err != nil {
		return err
	}
	return f.count()
}

// shorten moves the horizon on by a part of the rest; if it has arrived at the end,
// the paths that were deleted first go. It reports whether there is more to take away.
func (f *file) shorten(part float64) (more bool, err error) {
	horizon, err := f.c.Number("SELECT value FROM meta WHERE key=?", metaExpired)
	if err != nil {
		return false, err
	}
	rest, err := f.c.Number("SELECT count(*) FROM change WHERE seq>?", horizon)
	if err != nil {
		return false, err
	}
	if rest > 0 {
		next, err := f.c.Number("SELECT max(seq) FROM (SELECT seq FROM change WHERE seq>? ORDER BY seq LIMIT ?)", horizon, max(16, int64(part*float64(rest))))
		if err == nil {
			err = f.expire(next)
		}
		return true, err
	}
	var paths []driver.Value
	err = f.c.Each("SELECT c.path FROM change c WHERE c.type=0 AND c.seq=(SELECT max(seq) FROM change WHERE path=c.path) AND "+unnamed+
		" AND NOT EXISTS (SELECT 1 FROM change c2, snapshot s WHERE c2.path=c.path AND s.seq>=c2.seq) ORDER BY c.seq LIMIT 16", func(row []driver.Value) error {
		paths = append(paths, row[0])
		return nil
	})
	if err != nil || len(paths) == 0 {
		return false, err
	}
	err = f.transaction(func() error {
		for _, p := range paths {
			if err := f.c.Do("DELETE FROM change WHERE path=?", p); err != nil {
				return err
			}
		}
		return f.sweep()
	})
	return true, err
}

// expire moves the horizon to a change.
func (f *file) expire(horizon int64) error {
	err := f.transaction(func() error {
		if err := f.c.Do("DELETE FROM change AS c WHERE c.seq<?1 AND "+superseded+" AND "+unnamed, horizon); err != nil {
			return err
		}
		if err := f.c.Do("DELETE FROM change AS c WHERE c.seq<?1 AND "+bare, horizon); err != nil {
			return err
		}
		if err := f.c.Do("DELETE FROM gap WHERE seq<?1", horizon); err != nil {
			return err
		}
		if _, err := f.inserts.meta.Run(metaExpired, horizon); err != nil {
			return err
		}
		return f.sweep()
	})
	if err == nil {
		err = f.c.Do("PRAGMA incremental_vacuum")
	}
	return err
}

// sweep removes what no change needs any more.
func (f *file) sweep() error {
	defer f.forget()
	for _, query := range []string{
		"DELETE FROM content WHERE id NOT IN (SELECT content FROM change WHERE content IS NOT NULL)",
		"DELETE FROM path WHERE id NOT IN (SELECT path FROM change) AND id NOT IN (SELECT other FROM change WHERE other IS NOT NULL)",
		"DELETE FROM catch_up WHERE seq NOT IN (SELECT first FROM change WHERE kind=6)",
	} {
		if err := f.c.Do(query); err != nil {
			return err
		}
	}
	return nil
}

// maintain takes away what has grown too old, and thins.
func (f *file) maintain() error {
	if !f.changed {
		return nil
	}
	if err := f.thin(); err != nil {
		return err
	}
	if f.cfg.Age > 0 {
		oldest := f.cfg.Clock().Add(-f.cfg.Age).UnixMilli()
		horizon, err := f.c.Number("SELECT max(seq) FROM change WHERE time<?", oldest)
		if err != nil {
			return err
		}
		was, err := f.c.Number("SELECT value FROM meta WHERE key=?", metaExpired)
		if err != nil {
			return err
		}
		if horizon > was {
			if err := f.expire(horizon); err != nil {
				return err
			}
		}
	}
	f.changed = f.cfg.Age > 0 // what is there grows older
	return f.count()
}

// often is how many states of one path in an hour make it one that is written all the
// time, by a program, whose states are worth less the older they are.
const often = 60

// classes says how many of them are kept: beyond an age, the last one in each time.
var classes = [...]struct{ age, keep time.Duration }{
	{7 * 24 * time.Hour, time.Hour},
	{24 * time.Hour, 10 * time.Minute},
	{time.Hour, time.Minute},
}

// thin takes away states of paths that are written all the time.
func (f *file) thin() error {
	type hour struct {
		path, number int64
		keep         time.Duration
	}
	var hours []hour
	now := f.cfg.Clock().UnixMilli()
	for i, class := range classes {
		young := int64(0) // the class ends where the next older one begins
		if i > 0 {
			young = (now - classes[i-1].age.Milliseconds()) / hourMS
		}
		end := (now - class.age.Milliseconds()) / hourMS
		err := f.c.Each("SELECT path, time/3600000 AS h, count(*) AS n FROM change WHERE time>=?1*3600000 AND time<?2*3600000 AND kind<>7 GROUP BY path, h HAVING sum(1+omitted)>?3 AND n>?4", func(row []driver.Value) error {
			hours = append(hours, hour{integer(row[0]), integer(row[1]), class.keep})
			return nil
		}, young, end, int64(often), int64(time.Hour/class.keep))
		if err != nil {
			return err
		}
	}
	for len(hours) > 0 {
		some := hours[:min(len(hours), 64)]
		hours = hours[len(some):]
		err := f.transaction(func() error {
			for _, h := range some {
				if err := f.thinHour(h.path, h.number, h.keep.Milliseconds()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(hours) == 0 {
			if err := f.transaction(f.sweep); err != nil {
				return err
			}
			if err := f.c.Do("PRAGMA incremental_vacuum"); err != nil {
				return err
			}
		}
	}
	return nil
}

const hourMS = int64(time.Hour / time.Millisecond)

// thinHour keeps, of a path's states within an hour, the last one in each time.
func (f *file) thinHour(path, hour, keep int64) error {
	type state struct{ seq, slot, omitted int64 }
	var list []state
	err := f.c.Each("SELECT c.seq, c.time, c.omitted FROM change c WHERE c.path=?1 AND c.time>=?2 AND c.time<?3 AND c.kind<>7 AND "+unnamed+" ORDER BY c.seq", func(row []driver.Value) error {
		list = append(list, state{integer(row[0]), integer(row[1]) / keep, integer(row[2])})
		return nil
	}, path, hour*hourMS, (hour+1)*hourMS)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(list); i++ {
		if list[i].slot != list[i+1].slot {
			continue
		}
		list[i+1].omitted += list[i].omitted + 1
		if _, err := f.remove.Run(list[i].seq); err != nil {
			return err
		}
		if i+2 == len(list) || list[i+2].slot != list[i+1].slot {
			if err := f.c.Do("UPDATE change SET omitted=? WHERE seq=?", list[i+1].omitted, list[i+1].seq); err != nil {
				return err
			}
		}
	}
	return nil
}
