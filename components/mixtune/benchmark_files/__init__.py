"""Benchmarks as others publish them: their files, splits and columns, whatever form asks them."""

from mixtune.benchmark_files.benchmark_splits import ANSWERS as ANSWERS
from mixtune.benchmark_files.benchmark_splits import CONTEXTS as CONTEXTS
from mixtune.benchmark_files.benchmark_splits import CONVERSATIONS as CONVERSATIONS
from mixtune.benchmark_files.benchmark_splits import FAMILIES as FAMILIES
from mixtune.benchmark_files.benchmark_splits import FILE as FILE
from mixtune.benchmark_files.benchmark_splits import LISTS as LISTS
from mixtune.benchmark_files.benchmark_splits import NUMBERED as NUMBERED
from mixtune.benchmark_files.benchmark_splits import QUESTIONS as QUESTIONS
from mixtune.benchmark_files.benchmark_splits import SUBJECTS as SUBJECTS
from mixtune.benchmark_files.benchmark_splits import choose_split as choose_split
from mixtune.benchmark_files.benchmark_splits import name_unread as name_unread
from mixtune.benchmark_files.benchmark_splits import only_answer as only_answer
from mixtune.benchmark_files.benchmark_splits import passages as passages
from mixtune.benchmark_files.benchmark_splits import read_asked as read_asked
from mixtune.benchmark_files.benchmark_splits import read_items as read_items
from mixtune.benchmark_files.benchmark_splits import read_splits as read_splits
from mixtune.benchmark_files.benchmark_splits import stratified_subset as stratified_subset
from mixtune.benchmark_files.benchmark_splits import text_asked as text_asked
from mixtune.benchmark_files.benchmark_splits import text_of_problem as text_of_problem
from mixtune.benchmark_files.published_rows import BIAS as BIAS
from mixtune.benchmark_files.published_rows import CONTINUED as CONTINUED
from mixtune.benchmark_files.tables import Row as Row
from mixtune.benchmark_files.tables import need as need
from mixtune.benchmark_files.tables import parse_cell as parse_cell
from mixtune.benchmark_files.tables import plain_name as plain_name
from mixtune.benchmark_files.tables import read_rows as read_rows
