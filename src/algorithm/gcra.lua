-- GCRA, the twin of gcra.rs.

-- The level in units and the time of a record, which may be of another quota; nil when it is not ours.
local function gcra_level(record, capacity, unit)
  local tat, tat_fraction, at, old_capacity = integers(record)
  local old_gain, old_unit = integer(record[5]), integer(record[6])
  if not (tat and old_gain and old_unit
      and tat < EXACT and tat >= at and tat_fraction < old_gain and old_unit > 0 and old_capacity * old_unit < EXACT) then
    return nil
  end
  -- An inexact sum is above 2^53 and so above any full bucket.
  local level = old_capacity * old_unit - ((tat - at) * old_gain + tat_fraction)
  if level < 0 then return nil end
  local part = level % old_unit
  return carried((level - part) / old_unit, part, old_unit, at, capacity, unit), at
end

local function gcra_fields(level, at, capacity, gain, unit)
  local missing = capacity * unit - level
  local part = missing % gain
  return at + (missing - part) / gain, part, at, capacity, gain, unit
end

algorithms.gcra = {
  read = function(key)
    return call('HMGET', key, 'tat', 'tat_fraction', 'at', 'capacity', 'gain', 'unit')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local full, notice = capacity * unit, 0
    local level, at = gcra_level(record, capacity, unit)
    if not level then level, at, notice = full, now, is_foreign(record, 6) end
    local left, _, at, retry, remaining, reset, next_after, behind = take(level, at, now, cost, full, gain, unit)
    if behind > 0 then notice = behind end
    if retry > 0 then return retry, remaining, reset, next_after, notice end
    return 0, remaining, reset, next_after, notice, at + reset, gcra_fields(left, at, capacity, gain, unit)
  end,

  credit = function(record, _, charged_at, tokens, capacity, gain, unit)
    local full = capacity * unit
    local level, at = gcra_level(record, capacity, unit)
    if not level then return nil end
    level = credited(level, at, charged_at, tokens, full, gain, unit)
    return at + ceil_div(full - level, gain), gcra_fields(level, at, capacity, gain, unit)
  end,

  write = function(key, record, tat, tat_fraction, at, capacity, gain, unit)
    tat, tat_fraction, at = format(DECIMAL, tat), format(DECIMAL, tat_fraction), as_text[at]
    capacity, gain, unit = as_text[capacity], as_text[gain], as_text[unit]
    if record[4] == capacity and record[5] == gain and record[6] == unit then
      return call('HSET', key, 'tat', tat, 'tat_fraction', tat_fraction, 'at', at)
    end
    return call('HSET', key, 'tat', tat, 'tat_fraction', tat_fraction, 'at', at,
      'capacity', capacity, 'gain', gain, 'unit', unit)
  end,
}
