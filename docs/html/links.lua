-- For pandoc: makes pages that link to each other of documents that link to
-- each other, and leaves out what only tests and GitHub need.

function Link(link)
  local path = link.target:match("^([^#]*)")

  if link.target:match("^%a+:") or path == "" then
    return link
  elseif path:match("%.md$") then
    link.target = link.target:gsub("README%.md", "index.md"):gsub("%.md$", ".html"):gsub("%.md#", ".html#")
    return link
  elseif not path:match("%.svg$") then
    -- A file of the sources, which is not here.
    return link.content
  end
end

-- Comments tell the tests how to run examples.
function RawBlock(block)
  if block.text:match("^<!%-%-") then
    return {}
  end
end

-- Each page has a table of contents of its own.
function Pandoc(doc)
  local blocks = pandoc.List()
  local seen_text = false

  for i, block in ipairs(doc.blocks) do
    local text = pandoc.utils.stringify(block)
    local is_contents = block.t == "Para" and text:match("^Contents:") or
      block.t == "BulletList" and not seen_text

    if not is_contents then
      blocks:insert(block)
    end
    if block.t == "Header" and block.level == 1 and not doc.meta.pagetitle then
      doc.meta.pagetitle = text == "shard_fdw" and text or text .. " - shard_fdw"
    end
    seen_text = seen_text or block.t ~= "Header" and block.t ~= "RawBlock"
  end
  doc.blocks = blocks
  return doc
end
