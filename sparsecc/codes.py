"""Every code a diagnostic can carry: its meaning, why it happens, what to do. ``sparsecc explain SCC012`` prints it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from sparsecc.diagnostics import CompileError


@dataclass(frozen=True)
class Code:
    """``why`` tells what leads to the finding, ``fix`` what the person who reads it can do."""

    title: str
    why: str
    fix: str


_BUG = "Nothing you did: report it with the model, the command and the whole text of the error."

CODES: dict[str, Code] = {
    # 001-009: a pass broke a promise
    "SCC001": Code(
        "broken graph",
        "A node uses a value before it exists, or one that is no longer in the graph.",
        _BUG,
    ),
    "SCC002": Code(
        "value without shape", "A pass added a node and did not compute the shape and type of its value.", _BUG
    ),
    "SCC003": Code(
        "operation with a side effect",
        "Passes move and drop operations freely, so an operation that writes to its input may not be in the graph.",
        _BUG,
    ),
    "SCC004": Code(
        "computed weight",
        "A weight made from constants only (a mask, a reshape, a cast) must be folded to one constant before its zeros "
        "can be counted.",
        _BUG,
    ),
    "SCC005": Code(
        "layer not measured", "A layer appeared after its kind was counted, so its non-zeros are unknown.", _BUG
    ),
    "SCC006": Code(
        "layer without decision", "Every layer has a format, and a reason for it, once formats are chosen.", _BUG
    ),
    "SCC007": Code("weight not packed", "A weight was to be stored sparsely and is still dense.", _BUG),
    "SCC008": Code(
        "pass changed the result",
        "After every pass the Program runs again on the example inputs. A pass that must keep its meaning changed the "
        "outputs by more than the tolerance.",
        _BUG,
    ),
    "SCC009": Code(
        "compiled model differs",
        "Before anything is written, the compiled model runs on the example inputs in every engine. One of them "
        "differs by more than the tolerance: from the original, or for target scu from what the contracts mean.",
        _BUG,
    ),
    # 010-029: the model that goes in
    "SCC010": Code("no such file", "The path of the model leads nowhere, or may not be read.", "Check the path."),
    "SCC011": Code(
        "model cannot be traced",
        "torch.export turns the forward pass into a graph. Python that depends on the values in a tensor "
        "(`if x.sum() > 0`, `x.item()`), code outside torch, and inputs that the model refuses all stop it; so does an "
        "axis that should be dynamic where the model has a number.",
        "Look at the line the error names. Use torch.where or torch.cond instead of a Python branch, and make sure "
        "that `model(*example_inputs)` runs.",
    ),
    "SCC012": Code(
        "example inputs",
        "A module is traced on example inputs, and its axes are fixed or free from then on. The inputs are missing or "
        "do not fit its parameters, or dynamic axes were asked of a program that is already exported.",
        "Pass --inputs x.npz, or write model, inputs and axes into one file with "
        "sparsecc.save(module, example_inputs, 'model.pt', dynamic={'batch': 0}).",
    ),
    "SCC013": Code(
        "model in training mode",
        "The forward pass changes the model's own buffers, as batch normalisation does while training. An inference "
        "graph cannot.",
        "Call model.eval() before exporting.",
    ),
    "SCC014": Code(
        "input or output is not a tensor",
        "The compiled model takes and returns tensors only; numbers and strings are fixed when the model is traced.",
        "Store the value in the module, or pass it as a tensor.",
    ),
    "SCC015": Code(
        "damaged file",
        "The file is empty, truncated, or in no format that torch writes.",
        "Copy or download it again, or write it again with sparsecc.save.",
    ),
    "SCC016": Code(
        "file that runs code",
        "A pickled module runs whatever code it contains while it loads, so it is refused unless you say that you "
        "trust it. Some torch.export archives hold pickles too.",
        "Best: load it where it comes from and write it with sparsecc.save. If you trust it: --allow-pickle.",
    ),
    "SCC017": Code(
        "state dict and module do not match",
        "A state dict holds tensors without code. It needs the module they belong to; names and shapes must agree.",
        "Give the function that builds the module with --model package.module:function.",
    ),
    "SCC018": Code(
        "TorchScript",
        "torch.jit.save wrote this file. torch.export has replaced TorchScript, whose graphs keep control flow and "
        "side effects that cannot be compiled here.",
        "Load the original module and write it with sparsecc.save.",
    ),
    "SCC019": Code(
        "NaN or infinity in a weight",
        "Training diverged, or the file is damaged. No output of such a model means anything.",
        "Load a good checkpoint.",
    ),
    "SCC020": Code(
        "not a model file",
        "The path is a directory, a compiled artifact or an ONNX file; a PyTorch model is compiled.",
        "Export the PyTorch module with sparsecc.save. An artifact is run, verified and inspected, not compiled.",
    ),
    "SCC021": Code(
        "operation that ONNX lacks",
        "Operations outside the sparse regions are written with torch's ONNX exporter, which cannot express this one.",
        "Replace the operation in the model. `torch.onnx.export(model, inputs, dynamo=True)` shows the whole story.",
    ),
    "SCC022": Code(
        "--model names no usable factory",
        "The factory is a function or class that builds the module whose state dict was given. It could not be "
        "imported, failed, or returned something else.",
        "Give it as --model package.module:function, a function that needs no arguments and returns a torch.nn.Module.",
    ),
    "SCC023": Code(
        "code of a pickled module is not here",
        "A pickled module names its class and does not hold it: loading it imports the code that defined it.",
        "Run from the directory of that code. Better: load the module there and write it with sparsecc.save.",
    ),
    "SCC024": Code(
        "export archive of another torch",
        "torch.export archives are read by the version of torch that wrote them, and by some others. Operators of "
        "other packages have to be imported first.",
        "Export the model again with the version of torch that is installed here.",
    ),
    "SCC025": Code(
        "model that onnxruntime cannot run",
        "torch could write the model as ONNX, but onnxruntime has no kernel for one of its operators with these types "
        "on the CPU: bfloat16 matrix products, for instance.",
        "Convert the model to float32 (model.float()), or replace the operator that the message names.",
    ),
    "SCC026": Code(
        "random outputs",
        "Called twice on the example inputs, the model gave different outputs. It draws random numbers in evaluation "
        "mode too, so nothing could tell a compiled model that is right from one that is wrong.",
        "Pass what is random as an input, or draw it once in __init__ and keep it with register_buffer.",
    ),
    # 030: formats
    "SCC030": Code(
        "unusable format",
        "No storage format has this name, neither built in nor offered by an installed package; or a package offers "
        "it for matrices, and compiled models cannot unpack it.",
        "`sparsecc formats` lists them; compiled models take csr and BSR of any block shape: bsr4x1, bsr16x1.",
    ),
    # 040-042: data and pruning
    "SCC040": Code(
        "data set or weights missing",
        "Reference networks read public data sets and weights from your disk; nothing is downloaded.",
        "Put the files where the error says, or set SPARSECC_DATA.",
    ),
    "SCC041": Code(
        "impossible sparsity",
        "A sparsity is the share of each layer's weights that become zero, from 0 to 1; --sparsity takes less than 1, "
        "for at 1 nothing of the model is left. A block needs at least one row and column.",
        "Give a share such as 0.9.",
    ),
    "SCC042": Code(
        "weight that cannot be pruned",
        "A mask or parametrization computes this weight whenever it is read, so zeros written to it would be lost.",
        "Make the pruning permanent first (torch.nn.utils.prune.remove, or remove_parametrizations).",
    ),
    # 043-049: contracts of the SCU
    "SCC043": Code(
        "contract out of range",
        "A field of a contract has a value that no target could carry out: a share above 65536, a tile of no elements.",
        "Compile the model again. If you wrote the contracts yourself, the error names the field.",
    ),
    "SCC044": Code(
        "contract of another edge",
        "The type, the rank or the sensitivity map that a contract was made for is not what its edge has.",
        "Compile the model again, so that contracts and model belong together.",
    ),
    "SCC045": Code(
        "unreadable contracts",
        "The file is not JSON, or a field is missing, unknown or of the wrong type: it was edited or damaged.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC046": Code(
        "contracts from a newer sparsecc",
        "The contracts have a schema version that this sparsecc does not know.",
        "Upgrade sparsecc, or compile the model again with this one.",
    ),
    "SCC047": Code(
        "unusable sensitivity map",
        "The averages that make a map are missing, not finite, or of different lengths; or the file is damaged.",
        "Measure the map again from calibration data.",
    ),
    "SCC048": Code(
        "no contract suits an edge",
        "What the receiver of an edge needs at least, in elements, is more than a buffer, the link or the time allowed "
        "can take.",
        "Raise the limit that the error names in a target file (--target-file).",
    ),
    "SCC049": Code(
        "contracts of another network",
        "The edges of the model, in their order, are not those that the contracts were settled for.",
        "Settle contracts for this model, or give the model that they were settled for.",
    ),
    # 050: building kernels.so
    "SCC050": Code(
        "kernels.so cannot be built",
        "The kernels are linked by a C compiler, and this machine has none that works.",
        "Install one (apt install gcc), or the wheel that carries one: pip install 'sparsecc[zig]'.",
    ),
    # 058-059: calibration and settlement
    "SCC058": Code(
        "unusable calibration data",
        "Contracts are measured on samples: one array per input of the model under its name, samples along axis 0, at "
        "least two, and perhaps one class per sample under the name `labels`.",
        "Write them with numpy: np.savez('calibration.npz', x=..., labels=...).",
    ),
    "SCC059": Code(
        "budget that cannot be met",
        "Even the cheapest contracts that all receivers accept cost more than the budget, or even the dearest lose "
        "more than the drop allowed.",
        "Give the budget that the error names, or more; or a budget of another kind.",
    ),
    # 060-069: the artifact
    "SCC060": Code(
        "not an artifact",
        "A compiled model is a directory with a manifest.json, as `sparsecc compile` writes it.",
        "Check the path; `sparsecc compile model.pt -o model.sparsecc` makes one.",
    ),
    "SCC061": Code(
        "unreadable manifest",
        "manifest.json is not JSON, or a field is missing, unknown or of the wrong type: it was edited or damaged.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC062": Code(
        "artifact from a newer sparsecc",
        "The manifest has a schema version that this sparsecc does not know.",
        "Upgrade sparsecc, or compile the model again with this one. model.onnx itself needs no sparsecc: any "
        "onnxruntime runs it.",
    ),
    "SCC063": Code(
        "artifact cannot be written there",
        "Something that is not an artifact stands where it was to be written, and only artifacts are replaced; or the "
        "directory it goes into is missing, full or not yours to write to.",
        "Choose another path with -o, or remove what is there.",
    ),
    "SCC064": Code(
        "artifact changed after it was written",
        "A file of the artifact has another size or SHA-256 digest than the manifest says.",
        "Do not run it. Copy it again from where it was made, or compile the model again.",
    ),
    "SCC065": Code(
        "artifact incomplete",
        "A file that the manifest names is missing.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    # 070-079: what a compiled model is run on
    "SCC070": Code(
        "wrong input names",
        "A model takes every input under the name it has in the manifest, and no other.",
        "`sparsecc inspect` lists the inputs. In an .npz file, the names of the arrays are the names of the inputs.",
    ),
    "SCC071": Code(
        "wrong input shape",
        "Only axes that were dynamic when the model was compiled may differ from the shape in the manifest.",
        "Give the shape the error names, or compile again with --dynamic.",
    ),
    "SCC072": Code(
        "wrong input type", "Inputs are not converted silently.", "Convert the array, e.g. x.astype(np.float32)."
    ),
    "SCC073": Code(
        "kernels.so cannot be used here",
        "It is missing, or was built for another processor or operating system.",
        "Compile the model on this machine, or run it with --engine portable: the same results, without the kernels.",
    ),
    "SCC074": Code(
        "no reference",
        "The reference engine runs the compiled graph in torch. This artifact holds none, because its target writes "
        "none, or the graph is damaged or of another version of torch.",
        "Use --engine portable, or compile the model again.",
    ),
    "SCC075": Code(
        "a file cannot be written",
        "The file that outputs, a trace or a program go to, or its directory, is not writable, or is a directory.",
        "Choose another path with -o or --trace.",
    ),
    "SCC076": Code(
        "unreadable arrays",
        "The file is missing, or holds no arrays as numpy writes them. Pickled objects are not read.",
        "Write it with numpy: np.savez('x.npz', name=array).",
    ),
    "SCC077": Code(
        "onnxruntime refuses the model",
        "The artifact was compiled with other versions than those installed here, or the input drives an operation "
        "of the model into a case that it does not have.",
        "Compile the model again with the versions installed here; `sparsecc inspect` shows those it was made with.",
    ),
    "SCC078": Code(
        "no dense original",
        "bench compares the compiled model with the dense original, which `--target cpu` keeps in original.zip. This "
        "artifact was compiled by an older sparsecc or for another target and holds none, or it is damaged.",
        "Compile the model again, with --target cpu.",
    ),
    # 080-089: options, plugins, pipelines
    "SCC080": Code(
        "unknown pass",
        "No pass has this name, or --pipeline is no list of passes.",
        "`sparsecc passes` lists them, and the pipeline of every target.",
    ),
    "SCC081": Code(
        "broken plugin",
        "An installed package offers a part to sparsecc that cannot be imported, is of the wrong kind, or has a name "
        "that is taken.",
        "Repair or uninstall that package.",
    ),
    "SCC082": Code(
        "unknown option of a pass",
        "In --pipeline, a pass is followed by its options in braces: choose-formats{margin=0.2}. This one does not "
        "exist, or has a value of another type.",
        "`sparsecc passes` lists the options of every pass.",
    ),
    "SCC083": Code(
        "illegal order of passes",
        "A pass needs something that no pass before it in --pipeline provides.",
        "`sparsecc passes` shows what each pass needs and provides.",
    ),
    "SCC084": Code(
        "unknown source of costs",
        "choose-formats takes the time of a candidate from a measurement or from a model of the machine; no source "
        "has this name.",
        "Use choose-formats{costs=measured} or choose-formats{costs=predicted}.",
    ),
    "SCC085": Code("unknown target", "No backend offers this target.", "`sparsecc targets` lists them."),
    "SCC087": Code(
        "unusable option",
        "An option of the command line has a form that means nothing.",
        "`sparsecc COMMAND --help` shows the form.",
    ),
    "SCC088": Code("unknown code", "No diagnostic has this code.", "`sparsecc explain` lists them all."),
    "SCC089": Code(
        "unusable target file",
        "A target file is TOML or JSON with every number of the machine, or with `extends` and those that differ.",
        "Start from the built-in scu.toml; the error names the field that is wrong.",
    ),
    # 090-095: the file of an SCU program
    "SCC090": Code(
        "not an SCU program",
        "The file is truncated, or its header, its sections or their records are not as the format defines them.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC091": Code(
        "SCU program of another version",
        "The major version of the file is not the one that this sparsecc reads.",
        "Compile the model again with this sparsecc.",
    ),
    "SCC092": Code(
        "SCU program for another target",
        "A program fits one machine, whose digest it carries. The target given is not that one.",
        "Use the target.json that lies beside the program, or compile the model again for this target.",
    ),
    "SCC093": Code(
        "SCU program changed after it was written",
        "A CRC32 of the file or its SHA-256 does not match the content.",
        "Do not run it. Copy it again from where it was made, or compile the model again.",
    ),
    "SCC094": Code(
        "unreadable SCU assembly",
        "A line of the text is not in the form that `sparsecc scu disasm` writes.",
        "Look at the line the error names.",
    ),
    # 096-099: blocks of an SCU program's transfers and constants
    "SCC096": Code(
        "block cut short",
        "A block on a link of the SCU, or among a program's constants, is longer or shorter than its header says.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC097": Code(
        "block damaged",
        "The content of a block does not have the CRC32 that its header gives.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC098": Code(
        "block of an unknown kind",
        "The header of a block names a version, a codec, a type of element or a flag that this sparsecc does not know.",
        "Upgrade sparsecc, or compile the model again with this one.",
    ),
    "SCC099": Code(
        "impossible block",
        "The fields of a block contradict each other or its body: more elements kept than there are, positions that do "
        "not ascend, a length that no such block has. No encoder that keeps to the specification writes such a block.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    # 100-104: what an SCU program asks of its target
    "SCC100": Code(
        "impossible descriptor",
        "A descriptor or a record of the program has a field that means nothing, or that its operation does not use.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC101": Code(
        "address outside its memory",
        "A transfer, a kernel or a table reaches beyond the memory it names, or into one it may not touch.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC102": Code(
        "impossible k or contract",
        "A tile would keep more elements than it has, or a contract register is not what its use needs.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC103": Code(
        "impossible semaphore",
        "A descriptor names a semaphore that the target lacks, or counts further than it can.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    "SCC104": Code(
        "no room for a payload",
        "Less memory is reserved for a block than its contract may fill.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    # 105-108: what the descriptors of an SCU program do to each other
    "SCC105": Code(
        "SCU program may never end",
        "A descriptor waits for a semaphore that nothing releases often enough, or whose count depends on timing.",
        _BUG + " A program written by hand needs a release for every acquire, and one acquiring queue per semaphore.",
    ),
    "SCC106": Code(
        "reader that does not wait for its writer",
        "A descriptor reads bytes that one before it in the program writes, and neither queue nor semaphore says that "
        "the write comes first: a semaphore is missing.",
        _BUG + " In a program written by hand, let the second acquire what the first releases.",
    ),
    "SCC107": Code(
        "payload that its reader does not expect",
        "A RECV reads blocks that no SEND wrote there with the same codec, element type, k, tile length and room, or "
        "they are overwritten before they are read.",
        _BUG + " In a program written by hand, give SEND and RECV the same fields.",
    ),
    "SCC108": Code(
        "semaphore that may count too far",
        "A queue far ahead of the one that waits for it would release a semaphore beyond its greatest count.",
        _BUG + " In a program written by hand, let the releasing queue wait for the other now and then.",
    ),
    # 110-115: what a model asks of the unit, a schedule of its target, a program of its host
    "SCC110": Code(
        "operation without code for a compute tile",
        "The compute tiles' code is C that TVM writes, and TVM cannot express this operation on these types.",
        "Write it with other operations in the model, or compile for --target cpu.",
    ),
    "SCC111": Code(
        "model too large for a memory of the SCU",
        "Each tensor needs a place from its first write to its last use. Even run one operation after the other, more "
        "is alive at once than the memory holds.",
        "Give the memory more bytes in a target file (--target-file), or compile a smaller model.",
    ),
    "SCC112": Code(
        "too few semaphores",
        "Each pair of queues of which one waits for the other takes a semaphore of its own.",
        "Give command.semaphores a greater number in a target file (--target-file).",
    ),
    "SCC113": Code(
        "an operation of too many tensors",
        "A kernel of the unit reads one tensor in its scratchpad and at most four more.",
        "Write the operation in steps, for instance two and two tensors concatenated.",
    ),
    "SCC114": Code(
        "an SCU program that does not describe itself",
        "Section META lists where inputs and outputs lie; this one does not, or not in a way that makes sense.",
        "Compile the model again, or give addresses yourself in Python (sparsecc.backends.scu.simulator).",
    ),
    "SCC115": Code(
        "contracts for a target that has none",
        "Calibration data, budgets and target files are for targets that move data between layers by contract.",
        "Add --target scu, or leave the options out.",
    ),
    "SCC116": Code(
        "contracts without a basis",
        "A budget of bytes, cycles or accuracy is negotiated on calibration data.",
        "Give samples with --calibration, or the share of every edge with --keep.",
    ),
    # 117-118: what `simulate` and `inspect` read of an artifact for target scu
    "SCC117": Code(
        "no program for the SCU",
        "Only artifacts that were compiled with --target scu hold a program for the unit, and what was negotiated.",
        "Compile the model with --target scu, or run it with --engine onnxruntime.",
    ),
    "SCC118": Code(
        "unreadable report of the SCU",
        "scu/report.json of the artifact is not JSON, or a field is missing or of the wrong type: it was edited, "
        "damaged, or written by another version.",
        "Copy the artifact again as a whole, or compile the model again.",
    ),
    # 119-121: what is asked of contracts
    "SCC119": Code(
        "unusable option of contracts",
        "A share, number or name among the options of contracts means nothing, or two options exclude each other.",
        "`sparsecc compile --help` and the docstring of ContractOptions show what they take.",
    ),
    "SCC120": Code(
        "no codec or dtype for a contract",
        "RAW carries whole tiles only, and is always needed; to leave elements out takes bitmask or index. The target "
        "lacks a codec, or the options do not allow it. For int8 payloads it needs int8 among its dtypes, and a "
        "register for the zero point.",
        "Allow more with --codecs, give the target file more `codecs` or `dtypes`, or leave out --payload-dtype.",
    ),
    "SCC121": Code(
        "contract for another unit",
        "A contract that was given asks for tiles or keys that the unit cannot carry out.",
        "Give contracts that were settled for this target, or negotiate new ones.",
    ),
    # 123-124: contracts that adapt at run time
    "SCC123": Code(
        "contracts that cannot move",
        "--period needs calibration data, from which the margins are measured, and edges of more tiles"
        " than the period.",
        "Give --calibration, a smaller --period or shorter tiles; or leave --period out.",
    ),
    "SCC124": Code(
        "nothing to fill, rank, update or quantise with",
        "--fill mean, --payload-dtype int8 and whatever concerns sensitivity maps need calibration data. --routing "
        "sensitivity and --update-maps also need room for maps in the unit's memory.",
        "Give --calibration, or a greater --map-block; or leave the option out.",
    ),
    # 125-126: pictures
    "SCC125": Code(
        "no matplotlib",
        "Pictures are drawn by matplotlib, an optional dependency, and it cannot be imported.",
        "pip install 'sparsecc[plot]' installs it.",
    ),
    "SCC126": Code(
        "nothing to plot",
        "A picture shows the shares that edges send, or the times of layers; this artifact has neither.",
        "Compile a model with several layers, with --target scu for contracts or --target cpu for layers.",
    ),
    # 127: profiles
    "SCC127": Code(
        "no kernels to profile",
        "`bench --profile` times the kernels of kernels.so one by one. An artifact in which no layer is sparse, or "
        "whose kernels lost against dense, has none; one of an older sparsecc does not let them be timed.",
        "Compile the model again, or use bench without --profile.",
    ),
    # 128: what the descriptors of an SCU program do to each other, continued
    "SCC128": Code(
        "buffers that overlap",
        "A descriptor writes bytes that one before it in the program reads or writes, and neither queue nor semaphore "
        "says that the other is done with them: two tensors have the same place while both are alive.",
        _BUG + " In a program written by hand, give one of them another place, or let the second acquire what the "
        "first releases.",
    ),
}


def lookup(code: str) -> Code:
    """The entry of a code, in any case.

    Raises: CompileError SCC088 for a code that does not exist.
    """
    entry = CODES.get(code.upper())
    if entry is None:
        raise CompileError.of("SCC088", f"there is no code '{code}'", help="`sparsecc explain` lists them all")
    return entry


def explain(code: str, width: int = 100) -> str:
    """The entry of a code as text for a terminal, wrapped at ``width`` columns."""
    entry = lookup(code)
    paragraphs = (f"{code.upper()}: {entry.title}", entry.why, f"What to do: {entry.fix}")
    return "\n\n".join(textwrap.fill(text, width, break_long_words=False) for text in paragraphs)
