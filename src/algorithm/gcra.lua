-- GCRA, the twin of gcra.rs.

algorithms.gcra = {
  read = function(key)
    return redis.pcall('HMGET', key, 'tat', 'tat_fraction', 'at', 'capacity', 'gain', 'unit')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local tat, tat_fraction, at = integer(record[1]), integer(record[2]), integer(record[3])
    local old_capacity, old_gain, old_unit = integer(record[4]), integer(record[5]), integer(record[6])
    local full, level, notice = capacity * unit, nil, 0
    if tat and tat_fraction and at and old_capacity and old_gain and old_unit
        and tat >= at and tat_fraction < old_gain and old_unit > 0 and old_capacity * old_unit < EXACT then
      -- An inexact sum is above 2^53 and so above any full bucket.
      local old_level = old_capacity * old_unit - ((tat - at) * old_gain + tat_fraction)
      if old_level >= 0 then
        local part = old_level % old_unit
        level = carried((old_level - part) / old_unit, part, old_unit, at, capacity, unit)
      end
    end
    if level then
      level, at, notice = refilled(level, at, now, full, gain)
    else
      level, at, notice = full, now, is_foreign(record, 6)
    end
    local left, retry, r, s, n, r2, s2, n2, told, fresh_at = take(level, at, notice, cost, full, gain, unit)
    if not left then return retry, r, s, n, r2, s2, n2, told end
    local part = (full - left) % gain
    return retry, r, s, n, r2, s2, n2, told, fresh_at, at + (full - left - part) / gain, part, at, capacity, gain, unit
  end,

  write = function(key, fresh_at, tat, tat_fraction, at, capacity, gain, unit)
    return redis.pcall('HSET', key, 'tat', tat, 'tat_fraction', tat_fraction, 'at', at,
      'capacity', capacity, 'gain', gain, 'unit', unit)
  end,
}
