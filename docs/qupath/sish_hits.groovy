/*
 * Show what `sish search --geojson FOLDER` or `sish preview --geojson` wrote, in QuPath 0.5 or later.
 *
 * Open a project that has the slides (or one slide without a project), then run this script from
 * Automate > Script editor. It
 *   1. lays the objects of each file over the image that the file names,
 *   2. prints a list of the hits,
 *   3. asks which hit to go to, opens its image there and selects the patch, until Cancel is pressed.
 * Running it again replaces what it laid over before: objects of sish keep their ids. Objects of others stay.
 *
 * API of QuPath that is used: PathIO.readObjects, Project.getImageList, ProjectImageEntry (getURIs,
 * readImageData, saveImageData), PathObjectHierarchy (getAllObjects, removeObjects, addObjects),
 * QuPathGUI.openImageEntry, QuPathViewer (setDownsampleFactor, setCenterPixelLocation), and of QuPath's
 * user interface FileChoosers, Dialogs and FXUtils.
 */
import groovy.json.JsonSlurper
import qupath.fx.dialogs.Dialogs
import qupath.fx.dialogs.FileChoosers
import qupath.fx.utils.FXUtils
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO

// ---- Settings

String folderName = ""         // the folder that sish wrote; empty: QuPath asks for it
double downsample = 2.0        // zoom at a hit: level-0 pixels per pixel of the screen
boolean isAsking = true        // false: import and list only

// ---- 1. The files: each names its slide in the member "sish"

File folder = folderName ? new File(folderName) : FileChoosers.promptForDirectory("Folder of sish search --geojson", null)
if (folder == null)
    return
def files = [:]
for (file in folder.listFiles().sort()) {
    if (!file.name.toLowerCase().endsWith(".geojson"))
        continue
    def page = new JsonSlurper().parse(file, "UTF-8")
    if (page instanceof Map && page.sish)
        files.get(page.sish.slide, []) << file
}
println "${files.size()} slides in ${folder}"

// ---- 2. The images: those of the project, else the one that is open

QuPathGUI gui = QuPathGUI.getInstance()
def fileName = { uri -> new File(uri.path ?: uri.toString()).name }
def project = gui.getProject()
def openData = gui.getImageData()
def openEntry = project == null || openData == null ? null : project.getEntry(openData)

/* Lay the objects of some files over an image; return them. Earlier ones with the same ids are taken away. */
def layOver = { imageData, slideFiles ->
    def objects = slideFiles.collectMany { PathIO.readObjects(it) }
    def ids = objects.collect { it.getID() } as Set
    def hierarchy = imageData.getHierarchy()
    def earlier = hierarchy.getAllObjects(false).findAll { ids.contains(it.getID()) }
    hierarchy.removeObjects(earlier, true)
    hierarchy.addObjects(objects)
    def server = imageData.getServer()
    def isOutside = { roi -> roi.getCentroidX() > server.getWidth() || roi.getCentroidY() > server.getHeight() }
    if (objects.any { isOutside(it.getROI()) })
        println "  some objects lie outside the image: was another --origin meant?"
    return objects
}

// A hit: its rank, its text in the list, its object, and its project entry (null for the open image)
def hits = []
def remember = { objects, entry, slide ->
    for (object in objects) {
        def numbers = object.getMeasurements()
        if (!numbers.containsKey("Rank"))
            continue
        def about = object.getMetadata()
        def text = String.format("hit %d of %s: %s, %s, score %.3f, %d bits, query patch %d",
            numbers["Rank"] as int, [about["query"], about["region"]].findAll().join(", "), slide, about["label"] ?: "no label",
            numbers["Score"] as double, numbers["Hamming distance"] as int, numbers["Query patch"] as int)
        hits << [rank: numbers["Rank"], query: about["query"] ?: "", text: text, object: object, entry: entry]
    }
}

if (project == null) {
    if (openData == null) {
        println "No image is open, and no project: open one of them first"
        return
    }
    def slide = openData.getServer().getURIs().collect(fileName).find { files.containsKey(it) }
    if (slide != null)
        remember(layOver(openData, files.remove(slide)), null, slide)
} else {
    def shown = [] as Set
    for (entry in project.getImageList()) {
        def slide = entry.getURIs().collect(fileName).find { files.containsKey(it) }
        if (slide == null)
            continue
        println "Importing into ${entry.getImageName()}"
        def imageData = entry == openEntry ? openData : entry.readImageData()
        remember(layOver(imageData, files[slide]), entry, slide)
        entry.saveImageData(imageData)
        if (!imageData.is(openData))
            imageData.getServer().close()
        shown << slide
    }
    project.syncChanges()
    files.keySet().removeAll(shown)
}
for (slide in files.keySet())
    println "No image for ${slide}: add it to the project, or open it"

// ---- 3. The hits

hits.sort { a, b -> a.query <=> b.query ?: a.rank <=> b.rank }
hits.eachWithIndex { hit, number -> println "${number + 1}. ${hit.text}" }

/* Go to a hit: open its image, centre and select its patch. Windows belong to one thread, so this runs there. */
def goTo = { hit ->
    FXUtils.callOnApplicationThread {
        if (hit.entry != null && project.getEntry(gui.getImageData()) != hit.entry)
            gui.openImageEntry(hit.entry)
        def viewer = gui.getViewer()
        def roi = hit.object.getROI()
        viewer.setDownsampleFactor(downsample)
        viewer.setCenterPixelLocation(roi.getCentroidX(), roi.getCentroidY())
        def hierarchy = viewer.getImageData().getHierarchy()
        def there = hierarchy.getAllObjects(false).find { it.getID() == hit.object.getID() }
        hierarchy.getSelectionModel().setSelectedObject(there)
        return null
    }
}

def texts = hits.withIndex().collect { hit, number -> "${number + 1}. ${hit.text}".toString() } as String[]
String chosen = texts.length ? texts[0] : null
while (isAsking && chosen != null) {
    chosen = Dialogs.showChoiceDialog("sish", "Go to", texts, chosen)
    if (chosen != null)
        goTo(hits[texts.findIndexOf { it == chosen }])
}
