--- Tensors as text, the way Torch prints them.
--
-- Numbers are aligned in columns under one format for the whole tensor, with a common scale factor where that keeps
-- them short; matrices of more dims are printed one after the other under their indices; a last line names type and
-- sizes. Of a tensor of more than 1000 elements only the corners are shown.
-- @module pixelrefer.tensor.display

local core = require "pixelrefer.core"
local ffi = require "ffi"

local display = {}

local LINE = 80         -- characters
local THRESHOLD = 1000  -- elements: beyond, long dims are cut
local EDGE = 3          -- elements shown at each end of a dim that is cut

--- The numbers of a vector; integers that no Lua number holds exactly come as strings.
local function numbers(vector)
    local fine, values = pcall(vector.totable, vector)
    if fine then return values end
    local dense = vector:to("cpu"):clone()
    local data = ffi.cast("const int64_t *", core.tensor.pointer(dense))
    values = {}
    for i = 1, dense:nElement() do values[i] = (tostring(data[i - 1]):gsub("LL$", "")) end
    return values
end

--- The indices of a dim that are shown; false stands for what is left out.
local function shown(size, cut)
    local list = {}
    local gap = cut and size > 2 * EDGE
    for i = 1, gap and EDGE or size do list[i] = i end
    if gap then
        list[EDGE + 1] = false
        for i = size - EDGE + 1, size do list[#list + 1] = i end
    end
    return list
end

--- The numbers of a vector that are shown, with false for a gap.
local function row_of(vector, cut)
    local size = vector:size(1)
    if not cut or size <= 2 * EDGE then return numbers(vector) end
    local row = numbers(vector:narrow(1, 1, EDGE))
    row[EDGE + 1] = false
    for i, value in ipairs(numbers(vector:narrow(1, size - EDGE + 1, EDGE))) do row[EDGE + 1 + i] = value end
    return row
end

--- All rows that are shown, as a list of matrices { label, rows }; false in `rows` stands for a gap.
local function matrices(x, cut, label, list)
    if x:dim() == 2 then
        local rows = {}
        for _, i in ipairs(shown(x:size(1), cut)) do rows[#rows + 1] = i and row_of(x:select(1, i), cut) end
        list[#list + 1] = { label = label, rows = rows }
        return list
    end
    for _, i in ipairs(shown(x:size(1), cut)) do
        if i then
            matrices(x:select(1, i), cut, label .. i .. ",", list)
        else
            list[#list + 1] = { gap = true }
        end
    end
    return list
end

--- The decimal digits in front of the point of the smallest and the largest absolute value, and whether all are whole.
local function survey(list)
    local least, most, whole = math.huge, 0, true
    for _, matrix in ipairs(list) do
        for _, row in ipairs(matrix.rows or {}) do
            for _, value in ipairs(row or {}) do
                local size = type(value) == "number" and math.abs(value)
                if size and size == size and size < math.huge then
                    least, most = math.min(least, size), math.max(most, size)
                    whole = whole and size == math.floor(size)
                end
            end
        end
    end
    local function digits(value)
        return value > 0 and value < math.huge and math.floor(math.log10(value)) + 1 or 1
    end
    return digits(least), digits(most), whole
end

--- The format of all numbers: a format string, its width, and the factor that is taken out.
local function layout(list)
    local least, most, whole = survey(list)
    local width, scale = 7, 1
    local pattern = "%.4f"
    if whole then
        pattern = most > 9 and "%.4e" or "%d"
        width = most > 9 and 11 or most + 1
    elseif most - least > 4 then
        pattern, width = "%.4e", 11
    elseif most > 5 or most < 0 then
        scale = 10 ^ (most - 1)
    elseif most > 0 then
        width = most + 6
    end
    local function text(value)
        if not value then return "..." end
        if type(value) == "string" then return value end
        if value ~= value then return "nan" end
        if value == math.huge or value == -math.huge then return value > 0 and "inf" or "-inf" end
        return pattern:format(value / scale)
    end
    for _, matrix in ipairs(list) do
        for _, row in ipairs(matrix.rows or {}) do
            for _, value in ipairs(row or {}) do width = math.max(width, #text(value)) end
        end
    end
    return text, width, scale
end

local function row_text(row, first, last, text, width)
    local cells = {}
    for column = first, last do
        local cell = text(row[column])
        cells[#cells + 1] = (" "):rep(width - #cell) .. cell
    end
    return table.concat(cells, " ")
end

--- Adds the lines of one matrix, in groups of columns that fit a line.
local function add_matrix(lines, rows, text, width, scale, indent)
    local columns = rows[1] and #rows[1] or 0
    local group = math.max(1, math.floor((LINE - #indent) / (width + 1)))
    for first = 1, columns, group do
        local last = math.min(first + group - 1, columns)
        if group < columns then
            if first > 1 then lines[#lines + 1] = "" end
            lines[#lines + 1] = first == last and ("Column %d"):format(first)
                or ("Columns %d to %d"):format(first, last)
        end
        if scale ~= 1 then lines[#lines + 1] = ("%s%.0e *"):format(indent, scale) end
        for _, row in ipairs(rows) do
            lines[#lines + 1] = row and indent .. row_text(row, first, last, text, width) or indent .. "..."
        end
    end
end

--- The text of a tensor; also what `tostring(x)` and `print(x)` give.
-- @tparam Tensor x
-- @treturn string
function display.text(x)
    if x:isFreed() then return "[freed tensor]" end
    local sizes = x:size()
    local place = x:device() == "cpu" and "" or " on " .. x:device()
    local title = ("[%s tensor of size %s%s]"):format(x:dtype(), table.concat(sizes, "x"), place)
    if #sizes == 0 then
        title = ("[%s tensor of no dims%s]"):format(x:dtype(), place)
    elseif x:nElement() == 0 then
        return title
    end
    local cut = x:nElement() > THRESHOLD
    local list
    if #sizes <= 1 then
        list = { { rows = {} } } -- a vector is a column
        for i, value in ipairs(row_of(x:view(-1), cut)) do list[1].rows[i] = { value } end
    else
        list = matrices(x, cut, "", {})
    end
    local lines, text, width, scale = {}, layout(list)
    for _, matrix in ipairs(list) do
        if matrix.gap then
            lines[#lines + 1] = "..."
            lines[#lines + 1] = ""
        else
            if matrix.label and matrix.label ~= "" then lines[#lines + 1] = ("(%s.,.) ="):format(matrix.label) end
            add_matrix(lines, matrix.rows, text, width, scale, matrix.label and matrix.label ~= "" and " " or "")
            if matrix.label and matrix.label ~= "" then lines[#lines + 1] = "" end
        end
    end
    lines[#lines + 1] = title
    return table.concat(lines, "\n")
end

return display
